"""A relaxable space needs no `build`; its size is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from torch import nn

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.relax import Picker, derive_by_choice
from nas_core.space import SearchSpace
from nas_core.task import Task, image_task

TASK = image_task((1, 4, 4), 3)


class Bare(SearchSpace):
    name = "bare"
    choices = (Choice("activation", ("relu", "tanh")),)
    tasks = frozenset({TASK.kind})


class Wide(SizeConfig):
    width: int = 5
    depth: int = 1


class Relaxed(Bare):
    name = "relaxed"
    Size = Wide

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        width = Wide.own(size, self.name).width
        made = picker.module("activation", {"relu": nn.ReLU, "tanh": nn.Tanh})
        assert made is not None
        return nn.Sequential(nn.Flatten(), nn.Linear(16, width), made, nn.Linear(width, task.outputs))

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        return derive_by_choice(self, strengths)


def test_by_default_the_network_of_what_the_architecture_assigns() -> None:
    build = partial(Relaxed().build, task=TASK, size=Wide())
    for value, kind in (("relu", nn.ReLU), ("tanh", nn.Tanh)):
        assert isinstance(build(Architecture("relaxed", {"activation": value}))[2], kind)
    with pytest.raises(UsageError, match=r"space 'relaxed' has no network for .*: 'silu' is not an option"):
        build(Architecture("relaxed", {"activation": "silu"}))


def test_a_space_without_both_says_so() -> None:
    with pytest.raises(UsageError, match="space 'bare' builds no networks: it needs a method `build`, or `network`"):
        Bare().build(Architecture("bare", {"activation": "relu"}), TASK, SizeConfig())


def test_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'relaxed' needs its own Size \(width, depth\), got SizeConfig"):
        Relaxed().build(Architecture("relaxed", {"activation": "relu"}), TASK, SizeConfig())
