"""Every listed one-shot strategy keeps the contract on two small networks, and two of them on every relaxable space; a
new one is tested by being listed. The suite itself finds the defects that it is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import search_spaces
import strategies
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.config import SizeConfig, validate
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.one_shot import Compute, OneShot, Progress
from nas_core.relax import not_relaxable
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import Task
from nas_core.testing import convergence
from nas_core.testing.one_shot import Case, check
from strategies.one_shot.darts import Darts
from strategies.one_shot.spos import Spos
from training.data.loading import Loading

if TYPE_CHECKING:
    from torch import nn

EPOCHS = {"epochs": 2, "batch_size": 32}
OBJECTIVES = (Objective("accuracy", "max"),)

# Settings with which two epochs go through every phase; a strategy that is not named runs with its defaults.
CONFIGS: Mapping[str, list[dict[str, Any]]] = {
    "darts": [{}, {"order": 2}, {"bilevel": False}, {"warm_up_epochs": 1}],
    "drnas": [{}, {"regulariser": "l2"}],
    "argnp": [{}, {"bilevel": True}],
    "sgas": [{}, {"criterion": 2, "warm_up_epochs": 0}, {"bilevel": False}],
    "enas": [{"controller_steps": 2, "aggregate": 2, "candidates": 3}],
    "hessian-guard": [{"inner": "darts", "inner_config": EPOCHS}],
}

# Strategies that search within bounds, which otherwise would have nothing to do.
BOUNDED = frozenset({"rc-darts"})

# Scores that are no probabilities: the frequencies of candidates on edges that not every architecture has.
FREE = frozenset({"enas"})


@dataclass(frozen=True)
class Small:
    """A space at a small size, and data for it. `bounds` are between the costs of its networks."""

    text: str
    size: Mapping[str, float]
    data: str
    limit: int | None = None
    bounds: tuple[Constraint, ...] = ()

    @property
    def space(self) -> SearchSpace:
        space: SearchSpace = refs.load(self.text, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
        return space

    def make(self, data: Data, other: SearchSpace | None = None) -> nn.Module:
        """A fresh supernet, the same at every call, of this space or another one of the same architectures."""
        import torch

        from search_spaces.supernet.supernet import Supernet

        space = self.space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Supernet(other or space, data.task, space.Size.preset("search", **self.size))

    def bind(self) -> Data:
        from training.data import load
        from training.data.split import Split

        return load(self.data, Split(limit=self.limit)).bind("cpu", Loading(batch_size=32))


SPACES = (
    Small("nasbench201", {"channels": 2, "cells": 1}, "digits", 96, (Constraint("params", "<=", 3500),)),
    Small("nasbench_graph", {"hidden": 4}, "karate"),  # its costs are no sums, so that it cannot be bounded
    Small("darts", {"channels": 2, "layers": 3}, "digits", 40, (Constraint("params", "<=", 3000),)),
)

# What a strategy that refuses all of these is tried on instead; its two epochs are two rounds.
GROWN = Small(
    "argnp(vertices=4)", {"node": 4, "relation": 3, "node_output": 4, "relation_output": 3}, "sbm-cluster?graphs=10"
)
AT_HOME: Mapping[str, tuple[Small, ...]] = {"argnp": (GROWN, replace(GROWN, data="karate"))}


def case(kind: Any, config: Mapping[str, Any], small: Small, folder: Path, name: str = "") -> Case:
    data = small.bind()

    def factory(setting: Setting) -> OneShot:
        given = config if "inner_config" in config else {**EPOCHS, **config}
        made: OneShot = kind(setting, validate(kind.Config, given, "strategy"))
        return made

    return Case(
        factory,
        Setting(small.space, 5, OBJECTIVES, small.bounds if name in BOUNDED else ()),
        partial(small.make, data),
        data,
        partial(through_a_file, folder),
        name not in FREE,
    )


def through_a_file(folder: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """As a checkpoint keeps it."""
    from training import checkpoint

    tensors, plain = checkpoint.pack(state)
    checkpoint.save(folder, checkpoint.Checkpoint(1, tensors, plain))
    found = checkpoint.load(folder)
    assert found is not None
    return checkpoint.unpack(found.tensors, found.state)


# What every relaxable space meets: mixing weights of all candidates, and single paths.
REPRESENTATIVES = ("darts", "spos")

# Every strategy on two networks, one of images and one of a graph, the first with all settings; the third is dear.
CASES = [
    (name, number, small)
    for name in strategies.ONE_SHOT
    for number in range(len(CONFIGS.get(name, [{}])))
    for small in AT_HOME.get(name, SPACES if number == 0 else SPACES[:2])
]


def parameters(name: str, number: int, small: Small) -> Any:
    if name in AT_HOME:
        return pytest.param(name, number, small, id=f"{name}-{number}-{small.text}-{small.data}")
    product = small is SPACES[1] if number else small not in SPACES[:2] and name not in REPRESENTATIVES
    marks = [pytest.mark.matrix] if product else []
    return pytest.param(name, number, small, id=f"{name}-{number}-{small.text}", marks=marks)


@pytest.mark.parametrize(("name", "number", "small"), [parameters(*one) for one in CASES])
def test_one_shot_contract(name: str, number: int, small: Small, tmp_path: Path) -> None:
    kind = refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    assert list(check(case(kind, CONFIGS.get(name, [{}])[number], small, tmp_path, name))) == []


def converges(kind: Any, seed: int = 0, **config: Any) -> list[str]:
    """Findings of a whole search on the toy."""
    import torch

    from search_spaces.supernet.supernet import Supernet

    def relax(space: SearchSpace, task: Task, size: SizeConfig) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Supernet(space, task, size)

    config = {"epochs": convergence.EPOCHS, "batch_size": convergence.BATCH, **config}
    given = {"inner_config": config} if "inner_config" in kind.Config.model_fields else config
    strategy = kind(Setting(convergence.Windows(), seed, OBJECTIVES), validate(kind.Config, given, "strategy"))
    return list(convergence.check(strategy, relax, seed))


@pytest.mark.parametrize("name", strategies.ONE_SHOT)
def test_a_search_finds_the_path_that_is_known_to_be_the_best(name: str) -> None:
    less = {"controller_steps": 15, "aggregate": 4} if name == "enas" else {}  # a second is enough
    assert converges(refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "strategy"), **less) == []


@pytest.mark.parametrize("name", AT_HOME)
@pytest.mark.parametrize("small", SPACES, ids=lambda small: small.text)
def test_a_strategy_says_why_it_refuses_a_space(name: str, small: Small) -> None:
    kind: Any = refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    with pytest.raises(UsageError, match=f"divides the vertices .* '{small.space.name}' does not say how"):
        kind(Setting(small.space, 0, OBJECTIVES), kind.Config())


@pytest.mark.parametrize("text", search_spaces.BUILTIN)
def test_a_space_that_is_not_relaxable_is_refused_with_its_reason(text: str) -> None:
    space: SearchSpace = refs.load(text, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    reason = not_relaxable(space)
    if reason is None:
        Spos(Setting(space, 0, OBJECTIVES), Spos.Config())
        return
    with pytest.raises(UsageError, match=f"space '{space.name}' is not relaxable: ") as refused:
        Spos(Setting(space, 0, OBJECTIVES), Spos.Config())
    assert reason in str(refused.value)


# --- The suite ----------------------------------------------------------------------------------------------------


class ForgetsItsMomentum(Spos):
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {"weights": {**state["weights"], "tensors": {}}}


class DrawsElsewhere(Spos):
    """From Python's own generator."""

    def step(self, epoch: int) -> Progress:
        import random

        random_seed = random.randrange(2**31)
        self.setting = Setting(self.setting.space, random_seed, OBJECTIVES)
        return super().step(epoch)


class CountsByItself(Spos):
    """Keeps a number that the state lacks."""

    counted = 0

    def step(self, epoch: int) -> Progress:
        self.counted += 1
        return super().step(self.counted)


class StartsByChance(Spos):
    starts = 0

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        import torch

        super().start(make, data, compute)
        type(self).starts += 1
        with torch.no_grad():
            next(self.supernet.parameters()).add_(type(self).starts)


class KeepsObjects(Spos):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "config": self.config}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({"weights": state["weights"]})


class IllegalResult(Spos):
    def result(self) -> Sequence[Architecture]:
        return [Architecture(self.setting.space.name, {"cell/edge.0-1": "none"})]


class ScoresOneGroup(Spos):
    def step(self, epoch: int) -> Progress:
        return Progress(super().step(epoch).metrics, {"cell/edge.0-1": (0.2,) * 5}, None)


class ScoresTooMuch(Spos):
    def step(self, epoch: int) -> Progress:
        return Progress(super().step(epoch).metrics, dict.fromkeys(self.supernet.groups, (0.5,) * 5), None)


class ScoresBelowZero(Spos):
    def step(self, epoch: int) -> Progress:
        return Progress(
            super().step(epoch).metrics, dict.fromkeys(self.supernet.groups, (-1.0, 2.0, 0.0, 0.0, 0.0)), None
        )


class TakesAnySpace(Spos):
    def __init__(self, setting: Setting, config: Spos.Config) -> None:
        self.setting, self.config = setting, config


class HidesNaN(Spos):
    def step(self, epoch: int) -> Progress:
        from nas_core.errors import TrialError

        try:
            return super().step(epoch)
        except TrialError:
            return Progress({"train_loss": 0.0}, {}, None)


class Sleeps(Spos):
    def step(self, epoch: int) -> Progress:
        return Progress({"train_loss": 0.0}, {}, None)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ForgetsItsMomentum, "the supernet."),
        (DrawsElsewhere, "an instance that was given the state after one epoch ends the next one with metrics"),
        (CountsByItself, "an instance that was given the state after one epoch ends the next one with metrics"),
        (StartsByChance, "start: the state after a second start"),
        (KeepsObjects, "state.config is a Config, which a checkpoint cannot keep"),
        (IllegalResult, "result() is illegal"),
        (ScoresOneGroup, "there are strengths of ['cell/edge.0-1'], but the groups are"),
        (ScoresTooMuch, "the strengths of cell/edge.0-1 add up to 2.5"),
        (ScoresBelowZero, "not all between 0 and 1"),
        (TakesAnySpace, "refusal: a space that is not relaxable is not refused"),
        (HidesNaN, "loss that is not a number: it does not end the training with TrialError"),
        (Sleeps, "a second epoch leaves the state as it was"),
    ],
)
def test_defects_are_found(kind: type[Spos], message: str, tmp_path: Path) -> None:
    assert message in "\n".join(check(case(kind, {}, SPACES[0], tmp_path)))


class Climbs(Darts):
    """Its architecture parameters go up the loss."""

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        super().start(make, data, compute)
        self.alphas.optimizer.param_groups[0]["maximize"] = True


class Unlearns(Spos):
    """Its weights do."""

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        super().start(make, data, compute)
        for group in self.weights.optimizer.param_groups:
            group["maximize"] = True


class DerivesTheWeakest(Darts):
    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive({name: -vector for name, vector in self.alphas.vectors.items()})]


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        (Climbs, ["no more than the 0.333 of chance", "what is derived is"]),
        (Unlearns, ["the weights learn nothing", "the most accurate path of the supernet is"]),
        (DerivesTheWeakest, ["where the best path is colour=right, shape=left, texture=middle"]),
    ],
)
def test_a_search_that_goes_astray_is_found(kind: Any, messages: list[str]) -> None:
    found = converges(kind)
    assert len(found) == len(messages)
    for message, finding in zip(messages, found, strict=True):
        assert message in finding
