"""Two tests of tracing that share nothing with it: what reads a masked unit may hold anything, and a rule that forgets
to unite is found."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from compressors.comparison import answers, difference
from compressors.groups.operators import RULES
from compressors.groups.program import program_of
from compressors.groups.removal import masked, remove, tensors_of, uneven
from compressors.groups.rules.call import Call, Result
from compressors.groups.trace import graph_groups
from compressors.groups.walk import Walk
from tests.compressors.networks import NETWORKS
from tests.compressors.test_groups import made, traced

UNITS = 12  # of every network, drawn


@pytest.mark.parametrize("name", NETWORKS)
def test_what_reads_a_masked_unit_may_hold_anything(name: str) -> None:
    network, inputs = made(name)
    groups = traced(name)
    generator, draws = torch.Generator().manual_seed(0), np.random.default_rng(0)
    units = [(group, number) for group in groups.groups if group.exact for number in range(len(group.units))]
    for place in draws.permutation(len(units))[:UNITS]:
        group, number = units[place]
        assert group.units[number].consumed
        twin = masked(network, groups, {group.name: [number]})
        expected = answers(twin(*inputs))
        with torch.no_grad():
            for part in group.units[number].consumed:
                tensor = tensors_of(twin)[part.tensor]
                drawn = torch.rand(tensor.shape, generator=generator) + 0.5
                index = torch.tensor(part.indices)
                tensor.index_copy_(part.dim, index, drawn.index_select(part.dim, index))
        for one, other in zip(answers(twin(*inputs)), expected, strict=True):
            assert difference(one, other) <= 1e-5


def wrong(network: str) -> bool:
    """Whether some units of what its graph says, untried, are not what removing them gives."""
    module, inputs = made(network)
    module = copy.deepcopy(module)
    try:
        groups = graph_groups(module, program_of(module, inputs))
        removed = uneven([group for group in groups.groups if group.exact])
        twin, smaller = masked(module, groups, removed), copy.deepcopy(module)
        remove(smaller, groups, removed)
        pairs = zip(answers(smaller(*inputs)), answers(twin(*inputs)), strict=True)
        return any(one.shape != other.shape or difference(one, other) > 1e-5 for one, other in pairs)
    except RuntimeError:
        return True


BROKEN = (
    ("batch_norm", "resnet"),
    ("chunk", "chunk-into-branches"),
    ("reshape", "transformer"),
    ("conv2d", "grouped"),
    ("linear", "concat-flatten-linear"),
    ("add", "other-boundaries"),
    ("mul", "squeeze-excite"),
    ("view", "shufflenet"),
    ("matmul", "plain-attention"),
    ("scaled_dot_product_attention", "three-maps"),
    ("layer_norm", "transformer"),
    ("stack", "experts"),
    ("lstm", "lstm"),
    ("gru", "gru"),
    ("rnn_tanh", "rnn"),
)
"""A rule, and a network that needs it."""


def broken(name: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that unites nothing is found."""
    rule = RULES[name]

    def forgetful(walk: Walk, call: Call) -> Result:
        before = len(walk.pairs)
        result = rule(walk, call)
        del walk.pairs[before:]
        return result

    assert not wrong(network)
    monkeypatch.setitem(RULES, name, forgetful)  # type: ignore[arg-type]
    assert wrong(network)


@pytest.mark.parametrize(("name", "network"), BROKEN[:3])
def test_a_rule_that_unites_nothing_is_found(name: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(name, network, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network"), BROKEN[3:])
def test_more_rules_that_unite_nothing_are_found(name: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(name, network, monkeypatch)
