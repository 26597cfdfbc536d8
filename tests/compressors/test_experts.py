"""Drawn networks of `moe` on every backbone: what can be removed is proved, and what cannot says why and where."""

from __future__ import annotations

import numpy as np
import pytest

from compressors.groups.trace import trace
from nas_core.moves import complete, first, sample
from search_spaces.moe.space import Moe
from tests.compressors.test_groups import disturbed, proved
from tests.fidelity.test_moe_space import SMALL, SPACES, TASKS
from training.networks import build
from training.tasks import sample_inputs

DENSE = ("dense", "dense-total")


SLOW = ("patches", 1)  # 15 s on its own; the others are of the same property


@pytest.mark.parametrize(
    ("backbone", "number"),
    [
        pytest.param(backbone, number, marks=[pytest.mark.slow] if (backbone, number) == SLOW else [])
        for backbone in TASKS
        for number in range(3)
    ],
)
def test_what_can_be_removed_is_proved_and_what_cannot_is_named(backbone: str, number: int) -> None:
    task, space = TASKS[backbone], SPACES[backbone]
    arch = sample(space, np.random.default_rng(number))
    network, inputs = disturbed(build(space, arch, task, SMALL, number)), sample_inputs(task, 2)
    groups = trace(network, inputs)
    assert groups.groups
    assert all(fixed.name and fixed.operator and fixed.reason for fixed in groups.fixed)
    proved(network, groups, inputs)
    # Those of a GELU MLP can be removed; KAN's splines, for example, are of operators without a rule.
    stay = () if arch.values.get("expert") == "gelu" else groups.fixed
    named = [one.name for one in (*groups.groups, *stay)]
    if arch.values["ffn"] not in DENSE:
        assert any(".experts." in name for name in named)


def test_of_mixed_experts_as_much_can_be_removed_as_of_their_kinds() -> None:
    task, kind = TASKS["table"], "mixed(kinds=('gelu', 'glu', 'linear'))"
    space = Moe("table", kinds=(kind, "mixed"))
    wanted = {"ffn": "noisy-top-k", "depth": 2, "experts": 4, "active": 2}
    network, every = (
        disturbed(build(space, complete(space, {**wanted, "expert": one}, first), task, SMALL, 0))
        for one in (kind, "mixed")
    )
    inputs = sample_inputs(task, 2)
    groups = trace(network, inputs)
    assert [group.name for group in groups.groups] == ["stem"]
    proved(network, groups, inputs)
    # Splines are of operators without a rule, whatever stands beside them.
    assert any("kinds.kan" in fixed.at for fixed in trace(every, inputs).fixed if fixed.name == "stem")
