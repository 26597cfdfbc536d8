"""Recurrent layers that are wired like a random graph: the graphs, their layers, and who sees whom."""

from __future__ import annotations

import itertools
from collections import Counter

import networkx
import pytest
import torch
from torch import nn

from compressors.masks.density import counts, prunable
from nas_core.errors import UsageError
from search_spaces.layers.recurrent_graph import (
    GATES,
    GraphRecurrent,
    barabasi_albert,
    layers_of,
    watts_strogatz,
)

KINDS = pytest.mark.parametrize("kind", list(GATES), ids=lambda kind: kind.__name__)


@pytest.mark.parametrize("seed", range(3))
def test_the_graphs_are_those_of_the_papers(seed: int) -> None:
    ring = watts_strogatz(20, 4, 0.0, seed)
    assert set(map(frozenset, ring)) == set(map(frozenset, networkx.watts_strogatz_graph(20, 4, 0).edges))
    rewired, free = watts_strogatz(20, 4, 1.0, seed), barabasi_albert(30, 3, seed)
    for edges, count in ((ring, 40), (rewired, 40), (free, 3 + 26 * 3)):
        assert len(set(edges)) == len(edges) == count
        assert all(v < w for v, w in edges)
    assert len(set(rewired) - set(ring)) > 20
    assert len(free) == networkx.barabasi_albert_graph(30, 3, seed).number_of_edges()
    assert rewired == watts_strogatz(20, 4, 1.0, seed) != watts_strogatz(20, 4, 1.0, seed + 1)
    early = Counter(itertools.chain.from_iterable(barabasi_albert(200, 2, seed)))
    assert sum(early[v] for v in range(10)) > 3 * sum(early[v] for v in range(100, 110))  # the rich get richer


def test_a_layer_is_the_longest_path_that_leads_to_it() -> None:
    edges = barabasi_albert(25, 2, 4)
    graph = networkx.DiGraph(edges)
    for depth, here in enumerate(layers_of(25, edges)):
        for v in here:
            above = graph.subgraph({v, *networkx.ancestors(graph, v)})
            assert networkx.dag_longest_path_length(above) == depth


@KINDS
def test_connections_are_edges_and_stay_so(kind: type[nn.RNNBase]) -> None:
    """Card, check 6: what is not 0 of the weights between layers are the edges, once per gate; training adds none."""
    edges = barabasi_albert(20, 3, 1)
    network = GraphRecurrent(kind, 4, 20, edges)

    def connections() -> int:
        later = itertools.chain(*(prunable(layer).items() for layer in list(network.layers)[1:]))
        between = {str(number): one for number, (name, one) in enumerate(later) if name == "weight_ih_l0"}
        return sum(nonzero for nonzero, _ in counts(between).values())

    assert connections() == GATES[kind] * len(edges)
    optimizer = torch.optim.SGD(network.parameters(), 0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(2, 5, 4)).square().sum().backward()
        optimizer.step()
    assert connections() == GATES[kind] * len(edges)


@KINDS
def test_a_graph_of_full_layers_is_a_stack(kind: type[nn.RNNBase]) -> None:
    full = [(3 * layer + v, 3 * layer + 3 + w) for layer in range(2) for v in range(3) for w in range(3)]
    network, stack = GraphRecurrent(kind, 5, 9, full), kind(5, 3, num_layers=3, batch_first=True)
    with torch.no_grad():
        for number, layer in enumerate(network.layers):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                value = getattr(layer, f"{name}_l0")
                getattr(stack, f"{name}_l{number}").copy_(value[:, -3:] if name == "weight_ih" and number else value)
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(x), stack(x)[0], atol=1e-6)


def test_a_unit_hears_of_those_that_lead_to_it_alone() -> None:
    """Two paths side by side: the units of one layer see one another, and beyond that nothing crosses."""
    network = GraphRecurrent(nn.GRU, 2, 5, [(0, 2), (2, 4), (1, 3)])
    assert network.outputs == 2  # 3 and 4, in the order of the layers
    with torch.no_grad():
        for layer in network.layers:
            layer.weight_hh_l0.zero_()  # without the states of others
    x = torch.ones(1, 1, 2)
    answer = network(x)[0, 0]
    with torch.no_grad():
        network.layers[0].bias_ih_l0[[1, 3, 5]] += 1.0  # unit 1 in every gate
    changed = network(x)[0, 0]
    assert changed[0] != answer[0]
    assert changed[1] == answer[1]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UsageError, match="3 neighbours of 9 vertices: take an even number"):
        watts_strogatz(9, 3, 0.5, 0)
    with pytest.raises(UsageError, match="5 edges of each of 5 vertices"):
        barabasi_albert(5, 5, 0)
