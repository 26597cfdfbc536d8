"""Encodings: exact columns on NAS-Bench-201, what must not change them, known graphs, every listed space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import networkx
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from nas_core import moves, refs, tokens
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from predictors import encodings
from predictors.encodings import BLOCKS, DEFAULT, Encoder
from predictors.structure import PROPERTIES, properties
from predictors.surrogate import Problem
from search_spaces.nasbench201.space import NasBench201

CELLS = NasBench201()
FREE = [name for name in BLOCKS if name != "costs"]  # of scores


def drawn(space: SearchSpace, count: int) -> list[Architecture]:
    return [moves.sample(space, generator("encoded", number)) for number in range(count)]


def cell(text: str) -> Architecture:
    """`0s13p0`: an operation per edge, in the order of the official text."""
    letters = {"0": "none", "s": "skip_connect", "1": "nor_conv_1x1", "3": "nor_conv_3x3", "p": "avg_pool_3x3"}
    return Architecture(CELLS.name, {c.name: letters[x] for c, x in zip(CELLS.choices, text, strict=True)})


def on(block: str, arch: Architecture) -> set[str]:
    """The names of the columns that are not zero."""
    encoder = Encoder(Problem(CELLS), (block,))
    (row,) = encoder.encode([arch])
    return {name for name, value in zip(encoder.names, row, strict=True) if value}


def proxied(score: Callable[[Architecture], float]) -> Callable[[str, Sequence[Architecture]], list[float]]:
    return lambda name, archs: [score(arch) for arch in archs]


def value_of(arch: Architecture) -> float:
    """Any number, with ties."""
    return float(sum(3 * ("3x3" in str(value)) + ("1x1" in str(value)) for value in arch.values.values()))


def test_counts_of_columns() -> None:
    """5 + 25 + 125 paths of one to three operations; 1 + 3 + 9 + 27 when skips are contracted and zeros cut."""
    assert len(Encoder(Problem(CELLS), ("paths",)).names) == 155
    without_none = [name for name in Encoder(Problem(CELLS), ("paths",)).names if "none" not in name]
    assert len(without_none) == 4 + 16 + 64
    assert len(Encoder(Problem(CELLS), ("contracted-paths",)).names) == 40
    assert len(Encoder(Problem(CELLS), ("one-hot",)).names) == 30
    assert len(Encoder(Problem(CELLS), ("counts",)).names) == 5


def test_paths_of_a_cell() -> None:
    arch = cell("3s01p0")  # edges 0-1: 3x3, 0-2: skip, 1-2: none, 0-3: 1x1, 1-3: pool, 2-3: none
    three, one, pool = "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"
    assert on("paths", arch) == {
        f"input > {path} > output"
        for path in (one, f"{three} > {pool}", "skip_connect > none", f"{three} > none > none")
    }
    assert on("contracted-paths", arch) == {f"input > {path} > output" for path in (one, f"{three} > {pool}")}
    encoder = Encoder(Problem(CELLS), ("counts",))
    counts = dict(zip(encoder.names, encoder.encode([arch])[0].tolist(), strict=True))
    assert counts == {"avg_pool_3x3": 1, "nor_conv_1x1": 1, "nor_conv_3x3": 1, "skip_connect": 0, "dead": 3}
    assert on("contracted-paths", cell("s0s00s")) == {"input > output"}
    assert on("contracted-paths", cell("000000")) == set()


def test_equal_functions_have_equal_contracted_paths() -> None:
    """Check 3 of the card, on all cells: whatever `identity` calls equal."""
    archs = list(moves.enumerate_all(CELLS))
    rows = Encoder(Problem(CELLS), ("contracted-paths",)).encode(archs)
    seen: dict[str, bytes] = {}
    for arch, row in zip(archs, rows, strict=True):
        assert seen.setdefault(CELLS.identity(arch), row.tobytes()) == row.tobytes(), arch
    assert len(seen) == 5234
    assert len({row.tobytes() for row in rows}) > 2000  # not by being blind


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_an_operation_on_nothing_leaves_no_trace(seed: int) -> None:
    """Another operation where nothing arrives, or from where nothing leaves, changes no contracted path."""
    rng = generator("dead", seed)
    arch = moves.sample(CELLS, rng)
    none = {"cell/edge.0-2": "none", "cell/edge.1-2": "none"}  # nothing reaches node 2
    one, other = (
        Architecture(CELLS.name, {**arch.values, **none, "cell/edge.2-3": operation})
        for operation in rng.choice(CELLS.choices[0].options, 2).tolist()
    )
    first, second = Encoder(Problem(CELLS), ("contracted-paths", "structure")).encode([one, other])
    assert (first == second).all()


@pytest.mark.parametrize("name", search_spaces.BUILTIN)
def test_every_space(name: str) -> None:
    space: SearchSpace = refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    archs = drawn(space, 20)
    encoder = Encoder(Problem(space), FREE)
    rows = encoder.encode(archs)
    assert rows.shape == (20, len(encoder.names)) == (20, len(encoder.groups))
    assert numpy.isfinite(rows).all()
    pairs = list(zip(encoder.groups, encoder.names, strict=True))
    assert len(set(pairs)) == len(pairs)
    assert max(encoder.groups.count(group) for group in FREE[2:]) <= encodings.COLUMNS + 1
    expected = numpy.stack([tokens.one_hot(space, arch) for arch in archs])
    assert (rows[:, [group == "one-hot" for group in encoder.groups]] == expected).all()
    ordered = [choice.name for choice in space.choices if choice.ordered]
    assert [name for group, name in pairs if group == "ordinal"] == ordered
    assert rows[:, [group == "structure" for group in encoder.groups]].std(axis=0).any()


def test_columns_depend_on_the_space_alone() -> None:
    archs = drawn(CELLS, 30)
    one, other = Encoder(Problem(CELLS, seed=1), FREE), Encoder(Problem(CELLS, seed=2), FREE)
    assert one.names == other.names
    apart = numpy.concatenate([other.encode([arch]) for arch in reversed(archs)])[::-1]
    assert (one.encode(archs) == apart).all()
    assert (one.encode([*archs, *archs])[30:] == apart).all()  # remembered
    assert one.encode([]).shape == (0, len(one.names))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    archs = drawn(CELLS, 50)
    expected = Encoder(Problem(CELLS)).encode(archs)
    monkeypatch.setattr(encodings, "REMEMBERED", 8)
    encoder = Encoder(Problem(CELLS), DEFAULT)
    for start in range(0, 50, 5):
        assert (encoder.encode(archs[start : start + 5]) == expected[start : start + 5]).all()
        assert len(encoder._rows) <= 8
    assert (encoder.encode(archs) == expected).all()


def test_proxies_are_ranks_among_the_reference() -> None:
    scores = dict(zip(drawn(CELLS, 6), (-math.inf, 1.0, 2.0, 2.0, 5.0, math.nan), strict=True))
    reference = tuple(scores)
    assert len(scores) == 6
    asked: set[Architecture] = set()

    def score(name: str, archs: Sequence[Architecture]) -> list[float]:
        asked.update(archs)
        return [scores[arch] for arch in archs]

    encoder = Encoder(Problem(CELLS, 0, score, reference), (), ("proxy",))
    assert (encoder.names, encoder.groups) == (("proxy",), ("proxies",))
    assert encoder.encode(reference)[:, 0] == pytest.approx([1 / 6, 2.5 / 6, 4 / 6, 4 / 6, 5.5 / 6, 1 / 6])
    assert asked == set(reference)  # no other architecture is scored


def test_proxies_without_a_reference() -> None:
    """Architectures are drawn and scored; any rising function of the scores gives the same ranks."""
    archs = drawn(CELLS, 60)
    encoded = [
        Encoder(Problem(CELLS, 4, proxied(score)), ("counts",), ("one", "other")).encode(archs)
        for score in (value_of, lambda arch: math.exp(value_of(arch)) - 5)
    ]
    assert (encoded[0] == encoded[1]).all()
    ranks = encoded[0][:, -1]
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert abs(ranks.mean() - 0.5) < 0.15
    order = numpy.argsort([value_of(arch) for arch in archs], kind="stable")
    assert (numpy.diff(ranks[order]) >= 0).all()


def test_costs() -> None:
    archs = drawn(CELLS, 5)
    found = Encoder(Problem(CELLS, 0, proxied(value_of)), ("costs",)).encode(archs)
    assert found == pytest.approx(numpy.log1p([[value_of(arch)] * 2 for arch in archs]))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="unknown encoding 'path'; did you mean 'paths'"):
        Encoder(Problem(CELLS), ("path",))
    for blocks, proxies in (((), ("naswot",)), (("costs",), ())):
        with pytest.raises(UsageError, match="this study has none"):
            Encoder(Problem(CELLS), blocks, proxies)


def structure(nodes: int, edges: Sequence[tuple[int, int]]) -> dict[str, float]:
    return dict(zip(PROPERTIES, properties(nodes, edges).tolist(), strict=True))


def test_a_chain_and_a_diamond() -> None:
    chain = structure(3, [(0, 1), (1, 2)])
    expected = {"nodes": 3, "edges": 2, "density": 2 / 3, "depth": 2, "diameter": 2, "distance-mean": 4 / 3}
    expected |= {"betweenness-mean": 1 / 3, "betweenness-variance": 2 / 9, "clustering": 0, "sources": 1, "sinks": 1}
    expected |= {"log-paths": math.log(2), "degree-in-mean": 2 / 3, "degree-out-max": 1, "eccentricity-mean": 5 / 3}
    assert {name: chain[name] for name in expected} == pytest.approx(expected)
    diamond = structure(4, [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)])
    assert diamond["log-paths"] == pytest.approx(math.log(4))
    assert (diamond["depth"], diamond["diameter"], diamond["degree-out-max"]) == (2, 2, 3)
    assert diamond["density"] == pytest.approx(5 / 6)
    assert not any(structure(0, []).values())


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_structure_as_networkx_has_it(seed: int) -> None:
    rng = generator("graphs", seed)
    nodes = int(rng.integers(1, 12))
    share = rng.random()
    edges = [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if rng.random() < share]
    found = structure(nodes, edges)
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(nodes))
    plain = graph.to_undirected()
    between = list(networkx.betweenness_centrality(plain).values())
    close = list(networkx.closeness_centrality(plain).values())
    lengths = dict(networkx.all_pairs_shortest_path_length(plain))
    ends = [node for node in graph if graph.out_degree(node) == 0]
    starts = [node for node in graph if graph.in_degree(node) == 0]
    paths = sum(
        1 if start == end else len(list(networkx.all_simple_paths(graph, start, end)))
        for start in starts
        for end in ends
    )
    expected = {
        "depth": networkx.dag_longest_path_length(graph),
        "betweenness-mean": numpy.mean(between),
        "betweenness-variance": numpy.var(between),
        "closeness-mean": numpy.mean(close),
        "closeness-variance": numpy.var(close),
        "clustering": networkx.average_clustering(plain),
        "diameter": max(max(row.values()) for row in lengths.values()),
        "eccentricity-mean": numpy.mean([max(row.values()) for row in lengths.values()]),
        "log-paths": math.log1p(paths),
        "sources": len(starts),
        "sinks": len(ends),
        "degree-in-variance": numpy.var([degree for _, degree in graph.in_degree()]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_order_of_nodes_changes_nothing() -> None:
    """Check 3 of the card: a graph written in another topological order."""

    class Turned(NasBench201):
        def graph(self, arch: Architecture) -> ArchGraph:
            graph = super().graph(arch)
            last = len(graph.nodes) - 1
            edges = tuple((last - source, last - target) for source, target in reversed(graph.edges))
            return ArchGraph(graph.nodes[::-1], edges, True, graph.skips, graph.zeros)

    archs = drawn(CELLS, 100)
    blocks = ("paths", "contracted-paths", "counts", "structure")
    one, other = (Encoder(Problem(space), blocks) for space in (CELLS, Turned()))
    assert one.names == other.names
    assert one.encode(archs) == pytest.approx(other.encode(archs))
