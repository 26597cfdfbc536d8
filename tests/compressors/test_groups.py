"""Groups: what is removed of a network leaves the output of the network in which it is 0."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from compressors.groups.costs import Costs
from compressors.groups.groups import Groups
from compressors.groups.removal import half, masked, remove
from compressors.groups.trace import answers, difference, trace
from nas_core.errors import UsageError
from search_spaces import counter
from tests.compressors.networks import NETWORKS, Experts, rows
from training.changes import changes_of, rebuilt


def disturbed(network: nn.Module) -> nn.Module:
    """In evaluation mode, with random scales, shifts and statistics."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.3 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


@lru_cache
def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, inputs = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return disturbed(make()), inputs()


@lru_cache
def traced(name: str) -> Groups:
    return trace(*made(name))


def proved(network: nn.Module, groups: Groups, inputs: Sequence[Tensor]) -> nn.Module:
    """Half of all exact units removed: the masked twin's output, a backward pass, the same network from its changes and
    weights, and costs that are those of what was built."""
    removed = half([group for group in groups.groups if group.exact])
    smaller = copy.deepcopy(network)
    remove(smaller, groups, removed)
    twin = masked(network, groups, removed)
    for batch in (1, 2) if len(inputs) == 1 else (0,):
        given = [one[:batch] for one in inputs] if batch else inputs
        for one, other in zip(answers(smaller(*given)), answers(twin(*given)), strict=True):
            assert difference(one, other) <= 1e-5
    sum(one.sum() for one in answers(smaller(*inputs))).backward()  # type: ignore[union-attr]
    again = rebuilt(network, changes_of(network, smaller))
    again.load_state_dict(smaller.state_dict())
    assert all(map(torch.equal, answers(again.eval()(*inputs)), answers(smaller(*inputs))))
    costs = Costs(network, groups, inputs)
    assert costs.by_formula
    assert costs.of({}) == {"params": counter.params(network), "macs": counter.macs(network, inputs)}
    assert costs.of(removed) == {"params": counter.params(smaller), "macs": counter.macs(smaller, inputs)}
    return smaller


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_all_units_removed_is_the_masked_network(name: str) -> None:
    network, inputs = made(name)
    before = copy.deepcopy(network.state_dict())
    groups = traced(name)
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
    assert any(group.exact for group in groups.groups)
    proved(network, groups, inputs)
    assert all(fixed.reason and (fixed.at or fixed.operator) for fixed in groups.fixed)


def test_experts_by_index_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be traced, so nothing of it can be removed"):
        trace(Experts(dense=False), rows())


def test_ignored_modules_stay() -> None:
    network, inputs = made("resnet")
    groups = trace(network, inputs, ["2.one"])
    assert "2.one" in {fixed.name.rpartition(".")[0] for fixed in groups.fixed if fixed.reason == "is to be ignored"}
    with pytest.raises(UsageError, match=r"no module '2.onee' to be ignored; did you mean '2.one"):
        trace(network, inputs, ["2.onee"])


def test_more_than_may_go_is_refused() -> None:
    network, _ = made("same-tensor-twice")
    groups = traced("same-tensor-twice")
    name = groups.groups[0].name
    with pytest.raises(UsageError, match="1 must stay"):
        remove(network, groups, {name: range(len(groups.groups[0].units))})
    with pytest.raises(UsageError, match="unknown group 'stam'"):
        remove(network, groups, {"stam": [0]})
    with pytest.raises(UsageError, match="has units 0 to 5"):
        remove(network, groups, {name: [6]})
