"""The graph of an architecture: operations by their depth, from the inputs at the top to the outputs at the bottom."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nas_core.errors import NotFoundError
from nas_core.graph import ArchGraph
from reports.figure import BLACK, GREY, Axis, Figure, Labels, Mark, Panel, Segments, series
from reports.kind import Kind, Subject, of_runs, run_of
from reports.texts import plural

SWEEPS = 8  # over the layers, each ordered by where its neighbours are (Sugiyama, Tagawa and Toda 1981)
LABEL, LINES = 30, 3  # letters in a line of a label, and lines
LETTER, LINE, LAYER = 0.085, 0.15, 0.4  # inches that a letter is wide, a line high, and a layer without its lines
SLIM = 0.35  # of a node's width: what an edge takes that passes a layer
HALF = 0.26  # of a layer: where arrows begin and end above and below a box


@dataclass
class _Layers:
    """Nodes by depth; an edge over several layers has a node of its own in each of them, which is not drawn. `place`
    is the position of a node in its layer, from the middle."""

    depth: list[int]
    edges: list[tuple[int, int]]
    layers: list[list[int]]
    place: dict[int, float] = field(default_factory=dict)


def _make(subject: Subject) -> Figure:
    run = run_of(subject)
    graph, trouble = subject.view.graph(run.arch)
    if graph is None:
        raise NotFoundError(f"the architecture of {subject.view.address(run)} cannot be drawn: {trouble}")
    values = ", ".join(f"{name} {value:.6g}" for name, value in subject.view.values(run).items())
    notation = subject.view.notation(run.arch)
    sizes = f"{plural(len(graph.nodes), 'node')}, {plural(len(graph.edges), 'edge')}"
    drawn = _laid_out(graph)
    texts = [_wrapped(label) for label in graph.nodes]
    lines = [line for text in texts for line in text.splitlines()]
    high = max((text.count("\n") + 1 for text in texts), default=1)
    across = 0.6 + max(map(abs, drawn.place.values()), default=0.0)
    depth = len(drawn.layers) - 1
    x = Axis(hidden=True, limits=(-across, across))
    y = Axis(hidden=True, limits=(-depth - 0.5, 0.5))
    return Figure(
        kind="architecture",
        title=f"{subject.view.address(run)}: {subject.searched.spec.space}",
        caption=". ".join(filter(None, [sizes, values, notation])),
        panels=[Panel(x, y, list(_marks(graph, texts, drawn)))],
        size=(
            max(2 * across * (max(map(len, lines), default=1) * LETTER + 0.35), 5.0),
            (depth + 1) * (LAYER + LINE * high) + 1.2,
        ),
    )


def _wrapped(label: str) -> str:
    """A label in lines, of which the third is the last."""
    lines = textwrap.wrap(label, LABEL) or [""]
    return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], f"{lines[LINES - 1][: LABEL - 1]}…"])


def _laid_out(graph: ArchGraph) -> _Layers:
    """Nodes in layers by the longest path to them, ordered so that few edges cross."""
    depth = [0] * len(graph.nodes)
    for node in graph.order:
        depth[node] = max((depth[parent] + 1 for parent in graph.parents(node)), default=0)
    edges: list[tuple[int, int]] = []
    for source, target in graph.edges:
        before = source
        for level in range(depth[source] + 1, depth[target]):
            depth.append(level)
            edges.append((before, len(depth) - 1))
            before = len(depth) - 1
        edges.append((before, target))
    layers: list[list[int]] = [[] for _ in range(max(depth, default=0) + 1)]
    for node, level in enumerate(depth):
        layers[level].append(node)
    found = _Layers(depth, edges, layers)
    _place(found, len(graph.nodes))
    above: list[list[int]] = [[] for _ in depth]
    below: list[list[int]] = [[] for _ in depth]
    for source, target in edges:
        above[target].append(source)
        below[source].append(target)
    for sweep in range(SWEEPS):
        near = above if sweep % 2 == 0 else below
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            layer.sort(key=lambda node: _mean([found.place[other] for other in near[node]], found.place[node]))
            _place(found, len(graph.nodes))
    return found


def _place(found: _Layers, nodes: int) -> None:
    for layer in found.layers:
        widths = [1.0 if node < nodes else SLIM for node in layer]
        left = -sum(widths) / 2
        for node, width in zip(layer, widths, strict=True):
            found.place[node] = left + width / 2
            left += width


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _marks(graph: ArchGraph, texts: Sequence[str], drawn: _Layers) -> Iterator[Mark]:
    count = len(graph.nodes)

    def ends(node: int, side: float) -> tuple[float, float]:
        return drawn.place[node], -drawn.depth[node] + (side * HALF if node < count else 0.0)

    for arrows in (False, True):
        chosen = [(a, b) for a, b in drawn.edges if (b < count) == arrows]
        if chosen:
            starts, stops = [ends(a, -1) for a, _ in chosen], [ends(b, 1) for _, b in chosen]
            (x0, y0), (x1, y1) = (zip(*points, strict=True) for points in (starts, stops))
            yield Segments(list(x0), list(y0), list(x1), list(y1), color=GREY, arrows=arrows)
    labels = list(dict.fromkeys(graph.nodes))
    plain = graph.skips | graph.zeros
    ends_of = {node for node in range(count) if drawn.depth[node] == 0}
    ends_of |= set(range(count)) - {source for source, _ in graph.edges}
    shown = [
        label
        for label in labels
        if label not in plain and any(graph.nodes[n] == label for n in set(range(count)) - ends_of)
    ]
    for label in labels:
        nodes = [node for node in range(count) if graph.nodes[node] == label]
        color = series(shown.index(label)) if label in shown else GREY if label in plain else BLACK
        x, y = [drawn.place[node] for node in nodes], [-float(drawn.depth[node]) for node in nodes]
        yield Labels(x, y, [texts[node] for node in nodes], color, boxed=True)


KIND = Kind("the graph of an architecture, of the best trial where none is named", of_runs, _make)
