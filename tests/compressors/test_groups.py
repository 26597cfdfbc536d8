"""Groups: what is removed of a network leaves the output of the network in which it is 0."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from compressors.comparison import answers, difference
from compressors.groups.costs import Costs
from compressors.groups.groups import Groups
from compressors.groups.removal import half, masked, remove
from compressors.groups.trace import trace
from compressors.groups.trial import FORWARD
from nas_core.errors import UsageError
from search_spaces import counter
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.graph.aggregator.std import Deviation
from tests.compressors.networks import NETWORKS, Experts, rows
from training.changes import changes_of, rebuilt


def disturbed(network: nn.Module) -> nn.Module:
    """In evaluation mode, with random scales, shifts and statistics."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.3 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


def in_double(inputs: Sequence[Tensor], *networks: nn.Module) -> list[Tensor]:
    """What copies of networks with one answer say in float64."""
    given = [one.double() if one.is_floating_point() else one for one in inputs]
    return [copy.deepcopy(network).double()(*given) for network in networks]


@lru_cache
def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, inputs = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return disturbed(make()), inputs()


@lru_cache
def traced(name: str) -> Groups:
    return trace(*made(name))


def exact_half(groups: Groups) -> Mapping[str, list[int]]:
    return half([group for group in groups.groups if group.exact])


def halved(network: nn.Module, groups: Groups) -> nn.Module:
    """A copy without half of all exact units."""
    smaller = copy.deepcopy(network)
    remove(smaller, groups, exact_half(groups))
    return smaller


def proved(network: nn.Module, groups: Groups, inputs: Sequence[Tensor]) -> nn.Module:
    """Half of all exact units removed: the masked twin's output, a backward pass, the same network from its changes and
    weights, and costs that are those of what was built."""
    removed, smaller = exact_half(groups), halved(network, groups)
    twin = masked(network, groups, removed)
    for batch in (1, 2) if len(inputs) == 1 else (0,):
        given = [one[:batch] for one in inputs] if batch else inputs
        for one, other in zip(answers(smaller(*given)), answers(twin(*given)), strict=True):
            # Answers near 0 of deep networks are rounded by more.
            assert difference(one, other) <= 1e-5 or difference(*in_double(given, smaller, twin)) <= 1e-9
    sum(one.sum() for one in answers(smaller(*inputs))).backward()  # type: ignore[union-attr]
    again = rebuilt(network, changes_of(network, smaller))
    again.load_state_dict(smaller.state_dict())
    assert all(map(torch.equal, answers(again.eval()(*inputs)), answers(smaller(*inputs))))
    costs = Costs(network, groups, inputs)
    # A program computes all experts, the counter sees those that are chosen, and a deviation goes through its values
    # twice: costs are those of built networks then.
    counted_otherwise = (MixtureOfExperts, Deviation)
    assert costs.by_formula or any(isinstance(module, counted_otherwise) for module in network.modules())
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
    assert name == "transformer-encoder" or not any(fixed.operator == FORWARD for fixed in groups.fixed)


@pytest.mark.parametrize("name", ["transformer", "three-maps", "plain-attention"])
def test_units_of_attention_are_whole_heads(name: str) -> None:
    """4 heads of 4: the rows of a head in queries, keys and values, and the columns that read it."""
    group = next(group for group in traced(name).groups if group.name == "attention.into.0")
    assert (len(group.units), group.exact) == (4, True)
    rows = [part for part in group.units[1].produced if part.tensor.endswith("weight")]
    assert [index for part in rows for index in part.indices] in (
        [*range(4, 8)] * 3,
        [4, 5, 6, 7, 20, 21, 22, 23, 36, 37, 38, 39],
    )
    assert [part.indices for part in group.units[1].consumed] == [(4, 5, 6, 7)]


def test_experts_by_index_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UsageError, match=r"nothing of it can be removed: in Experts at `if rows.any\(\):`: what is comp"
    ):
        trace(Experts(dense=False), rows())
    assert capfd.readouterr() == ("", "")


def test_the_line_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(UsageError, match=r"in Made at `return self.classify\(functional.relu\(self.hidden"):
        trace(made("concat-flatten-linear")[0], (torch.randn(2, 3, 6, 6),))


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
