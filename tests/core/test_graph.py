"""Architecture graphs: order, paths, and a hash that sees structure but not the numbering of nodes."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.graph import ArchGraph

DIAMOND = ArchGraph(("in", "conv", "pool", "out"), ((0, 1), (0, 2), (1, 3), (2, 3)))


@st.composite
def graphs(draw: st.DrawFn) -> ArchGraph:
    nodes = draw(st.lists(st.sampled_from(["in", "conv", "pool"]), min_size=1, max_size=7))
    pairs = [(source, target) for target in range(len(nodes)) for source in range(target)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
    return ArchGraph(tuple(nodes), tuple(edges))


def relabelled(graph: ArchGraph, order: list[int]) -> ArchGraph:
    """The same graph with node i at position order[i], and its edges listed in another order."""
    nodes = [""] * len(order)
    for node, position in enumerate(order):
        nodes[position] = graph.nodes[node]
    edges = sorted((order[source], order[target]) for source, target in graph.edges)
    return ArchGraph(tuple(nodes), tuple(reversed(edges)))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_hash_does_not_see_how_nodes_are_numbered(graph: ArchGraph, random: object) -> None:
    order = list(range(len(graph.nodes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = relabelled(graph, order)
    assert other.wl_hash() == graph.wl_hash()
    assert other.wl_hash(2) == graph.wl_hash(2)
    assert other.longest_path() == graph.longest_path()


def test_the_hash_is_a_storage_format() -> None:
    assert DIAMOND.wl_hash() == "46877bb4bb43a868"
    assert DIAMOND.wl_hash(1) == "8728fa31538a91fb"


@pytest.mark.parametrize(
    "other",
    [
        ArchGraph(("in", "conv", "conv", "out"), DIAMOND.edges),
        ArchGraph(DIAMOND.nodes, DIAMOND.edges[:-1]),
        ArchGraph(DIAMOND.nodes, (*DIAMOND.edges, (0, 3))),
        ArchGraph(DIAMOND.nodes, tuple((target, source) for source, target in DIAMOND.edges)),
        ArchGraph((*DIAMOND.nodes, "pool"), DIAMOND.edges),
        ArchGraph(DIAMOND.nodes, ((0, 1), (1, 2), (2, 3))),
    ],
)
def test_the_hash_sees_labels_edges_and_their_direction(other: ArchGraph) -> None:
    assert other.wl_hash() != DIAMOND.wl_hash()


def test_far_nodes_are_seen_only_after_enough_rounds() -> None:
    """Two chains whose only difference lies three steps from where it matters."""
    edges = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11))
    one = ArchGraph(("a", "x", "x", "x", "x", "b", "c", "x", "x", "x", "x", "d"), edges)
    other = ArchGraph(("a", "x", "x", "x", "x", "d", "c", "x", "x", "x", "x", "b"), edges)
    assert one.wl_hash(1) == other.wl_hash(1)
    assert one.wl_hash() != other.wl_hash()


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_order_parents_and_adjacency_agree(graph: ArchGraph) -> None:
    position = {node: place for place, node in enumerate(graph.order)}
    assert sorted(graph.order) == list(range(len(graph.nodes)))
    assert all(position[source] < position[target] for source, target in graph.edges)
    matrix = graph.adjacency()
    assert {(int(i), int(j)) for i, j in zip(*numpy.nonzero(matrix), strict=True)} == set(graph.edges)
    assert all(set(graph.parents(node)) == set(numpy.flatnonzero(matrix[:, node])) for node in graph.order)
    powers = [numpy.linalg.matrix_power(matrix.astype(int), steps).any() for steps in range(len(graph.nodes) + 1)]
    assert graph.longest_path() == max(steps for steps, some in enumerate(powers) if some)


def test_impossible_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"edge \(0, 2\) leaves the 2 nodes"):
        ArchGraph(("a", "b"), ((0, 2),))
    with pytest.raises(ValueError, match=r"edge \(-1, 0\) leaves"):
        ArchGraph(("a", "b"), ((-1, 0),))
    with pytest.raises(ValueError, match="the graph has a cycle"):
        ArchGraph(("a", "b", "c"), ((0, 1), (1, 2), (2, 1)))
    with pytest.raises(ValueError, match="the graph has a cycle"):
        ArchGraph(("a",), ((0, 0),))
