"""The terminal drawing: read back, it is the graph that was drawn."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_cli.draw import RAILS, draw
from nas_core.graph import ArchGraph


@st.composite
def graphs(draw_: st.DrawFn) -> ArchGraph:
    """Graphs of up to 9 nodes with distinct labels, numbered in any order."""
    count = draw_(st.integers(0, 9))
    names = draw_(st.permutations(range(count)))
    pairs = [(one, other) for other in range(count) for one in range(other)]
    chosen = draw_(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return ArchGraph(tuple(f"op{node}" for node in range(count)), tuple((names[a], names[b]) for a, b in chosen))


def read(lines: list[str]) -> tuple[list[str], set[tuple[str, str]]]:
    """Labels and edges of a drawing, by following its rails from line to line."""
    rails: dict[int, str] = {}  # column -> the label whose rail runs there
    labels, edges = [], set()
    for line in lines:
        match = re.match(r"(?P<rails>[●─│├┤┼┴╰╯ ]*?)\s+\d+  (?P<label>\S+)", line)
        assert match, line
        label, drawing = match["label"], match["rails"]
        own = drawing.index("●")
        assert drawing.count("●") == 1
        after: dict[int, str] = {}  # a rail that has no mark in a line has ended
        for column, mark in enumerate(drawing):
            if column % 2:
                assert mark in " ─"
                continue
            if mark in "├┤┼│":
                after[column] = rails[column]
            if mark in "├┤┼┴╰╯":
                edges.add((rails[column], label))
            assert mark != "●" or column == own
        if own in rails:
            edges.add((rails[own], label))
        line_ends = [column for column, mark in enumerate(drawing) if mark in "├┤┼┴╰╯●"]
        for column in range(min(line_ends) + 1, max(line_ends)):
            assert drawing[column] in "─●┼┴│", line  # the line across has no gap
        after[own] = label
        rails = after
        labels.append(label)
    return labels, edges


@given(graphs())
def test_a_drawing_shows_exactly_the_edges(graph: ArchGraph) -> None:
    lines = draw(graph)
    labels, edges = read(lines)
    assert labels == [graph.nodes[node] for node in graph.order]
    assert edges == {(graph.nodes[source], graph.nodes[target]) for source, target in graph.edges}


def test_a_cell_is_drawn_like_this() -> None:
    nodes = ("input", "conv3", "conv1", "skip", "conv3", "none", "pool", "output")
    edges = ((0, 1), (0, 2), (1, 3), (0, 4), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7))
    assert draw(ArchGraph(nodes, edges)) == [
        "●        0  input",
        "├─●      1  conv3   ← 0",
        "├─│─●    2  conv1   ← 0",
        "│ ├─│─●  3  skip    ← 1",
        "● │ │ │  4  conv3   ← 0",
        "│ ● │ │  5  none    ← 1",
        "│ │ ●─╯  6  pool    ← 2, 3",
        "●─┴─╯    7  output  ← 4, 5, 6",
    ]


def test_equal_layers_of_a_chain_share_a_line() -> None:
    nodes = ("input", *["24 channels"] * 4, "48 channels", "output")
    chain = tuple((node, node + 1) for node in range(6))
    assert draw(ArchGraph(nodes, chain)) == [
        "●    0  input",
        "●  1–4  24 channels ×4",
        "●    5  48 channels",
        "●    6  output",
    ]
    shortcut = draw(ArchGraph(nodes, (*chain, (2, 4))))  # what is read from outside stays on a line of its own
    assert [line.partition("← ")[2] for line in shortcut if "24" in line] == ["0", "2", "2, 3"]


def test_unrelated_nodes_do_not_look_like_a_chain() -> None:
    lines = draw(ArchGraph(("a", "b", "c"), ()))
    assert lines == ["●    0  a", "  ●  1  b", "●    2  c"]


@pytest.mark.parametrize("count", [RAILS + 5, 300])
def test_too_many_rails_become_a_list_of_inputs(count: int) -> None:
    nodes = tuple(f"n{node}" for node in range(count + 1))
    lines = draw(ArchGraph(nodes, tuple((node, count) for node in range(count))))
    assert lines[0].split() == ["0", "n0"]
    assert lines[-1].endswith("← " + ", ".join(map(str, range(count))))


def test_labels_cannot_break_a_line() -> None:
    assert draw(ArchGraph(("a\nb\x1b[31m",), ())) == ["●  0  a b?[31m"]
