"""The drawing of an architecture's graph in a terminal: one line per node, with rails like `git log --graph`.

A rail runs down from a node's mark past the nodes that read it and ends at the last of them:

    ●        0  input
    ├─●      1  nor_conv_3x3  ← 0
    ├─│─●    2  nor_conv_1x1  ← 0
    ● │ │    3  skip_connect  ← 0
    │ ● │    4  none          ← 1
    ●─┴─╯    5  output        ← 2, 3, 4

`├ ┤ ┼` is read here and further down, `╰ ╯ ┴` here for the last time, `│` passes a line without touching it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas_cli.render import clean
from nas_core.graph import ArchGraph

RAILS = 20  # with more rails side by side nobody can follow them: the inputs alone are listed


@dataclass(frozen=True, slots=True)
class _Step:
    """One line of the drawing: a node, or a run of equal nodes in a chain."""

    nodes: tuple[int, ...]
    label: str
    inputs: tuple[int, ...]  # nodes that the first of them reads


def draw(graph: ArchGraph) -> list[str]:
    """The lines of the drawing; right for every directed acyclic graph."""
    steps = _steps(graph)
    rails = _rails(steps)
    chain = all(step.inputs == (steps[position - 1].nodes[-1],) for position, step in enumerate(steps) if position)
    names = [_name(step.nodes) for step in steps]
    width = max(map(len, rails), default=0)
    name_width = max(map(len, names), default=0)
    label_width = max((len(step.label) for step in steps), default=0)
    lines = []
    for step, rail, name in zip(steps, rails, names, strict=True):
        head = f"{rail:<{width}}  " if width else ""
        inputs = "" if chain or not step.inputs else f"  ← {', '.join(map(str, step.inputs))}"
        lines.append(f"{head}{name:>{name_width}}  {step.label:<{label_width}}{inputs}".rstrip())
    return lines


def _name(nodes: Sequence[int]) -> str:
    return str(nodes[0]) if len(nodes) == 1 else f"{nodes[0]}–{nodes[-1]}"


def _steps(graph: ArchGraph) -> list[_Step]:
    """The nodes in topological order; a node joins its predecessor's line where both say the same in a chain."""
    inputs: list[list[int]] = [[] for _ in graph.nodes]
    readers = [0] * len(graph.nodes)
    for source, target in graph.edges:
        inputs[target].append(source)
        readers[source] += 1
    runs: dict[int, list[int]] = {}  # last node -> its run
    for node in graph.order:
        parents = inputs[node]
        joins = (
            len(parents) == 1
            and readers[parents[0]] == 1
            and graph.nodes[parents[0]] == graph.nodes[node]
            and parents[0] + 1 == node
        )
        run = runs.pop(parents[0]) if joins else []
        runs[node] = [*run, node]
    order = {node: position for position, node in enumerate(graph.order)}
    found = []
    for run in sorted(runs.values(), key=lambda run: order[run[0]]):
        label = clean(graph.nodes[run[0]])
        times = f" ×{len(run)}" if len(run) > 1 else ""
        found.append(_Step(tuple(run), f"{label}{times}", tuple(sorted(inputs[run[0]]))))
    return found


def _rails(steps: Sequence[_Step]) -> list[str]:
    """The rails of every line; empty texts where there would be too many."""
    step_of = {node: position for position, step in enumerate(steps) for node in step.nodes}
    parents = [{step_of[node] for node in step.inputs} for step in steps]
    left = [0] * len(steps)  # readers still to come
    for sources in parents:
        for source in sources:
            left[source] += 1
    columns: list[int | None] = []  # the step whose rail runs there
    blocked: int | None = None  # a mark without readers stood there in the line above
    lines = []
    for position, sources in enumerate(parents):
        read = {column: source for column, source in enumerate(columns) if source in sources}
        for source in sources:
            left[source] -= 1
        ending = {column for column, source in read.items() if left[source] == 0}
        free = [column for column, source in enumerate(columns) if source is None and column != blocked]
        own = min(ending) if ending else free[0] if free else len(columns)
        if own == len(columns):
            columns.append(None)
            if len(columns) > RAILS:
                return [""] * len(steps)
        lines.append(_line(columns, own, set(read), ending))
        for column in ending:
            columns[column] = None
        columns[own] = position if left[position] else None
        blocked = None if left[position] else own
    return lines


def _line(columns: Sequence[int | None], own: int, read: set[int], ending: set[int]) -> str:
    first, last = min({own, *read}), max({own, *read})
    text = ""
    for column, source in enumerate(columns):
        inside = first < column < last
        if column == own:
            mark = "●"
        elif column in read:
            corners = "╰┴╯" if column in ending else "├┼┤"
            mark = corners[0 if column == first else 2 if column == last else 1]
        elif source is not None:
            mark = "│"
        else:
            mark = "─" if inside else " "
        text += mark + ("─" if first <= column < last else " ")
    return text.rstrip()
