"""A graph isomorphism network on architecture graphs, several members at a time.

Xu, Hu, Leskovec and Jegelka, "How Powerful are Graph Neural Networks?", ICLR 2019, equation 4.1: a node's new state
is an MLP of its own and the sum of its neighbours'. Here those it reads and those that read it have weights of their
own, as in the directed networks of Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020.

Operations that hand on nothing are taken out, with what then reads or feeds nothing, and one that hands its input
on is replaced by edges past it, so that cells of equal function are equal graphs. How nodes are numbered changes
nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace
from predictors.surrogates.neural import Parameters

REMEMBERED = 20_000  # simplified graphs

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Graph:
    """Labels of nodes, and how many edges lead from one to another: (from, to) -> count."""

    labels: tuple[str, ...]
    edges: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Graphs:
    """Graphs of one batch, padded to the largest: `nodes` [graphs, nodes, features], `reads` [graphs, nodes, nodes]
    with the number of edges from the second to the first, and `real` [graphs, nodes, 1], 0 where padded."""

    nodes: Tensor
    reads: Tensor
    real: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Graphs:
        return Graphs(self.nodes[chosen], self.reads[chosen], self.real[chosen])


def simplified(graph: ArchGraph) -> Graph:
    """The graph without zeros, without what is dead because of them, and with edges past skips."""
    edges: dict[tuple[int, int], int] = {}
    if not graph.zeros and not graph.skips:
        return Graph(graph.nodes, dict.fromkeys(graph.edges, 1))
    gone = {node for node, label in enumerate(graph.nodes) if label in graph.zeros}
    for edge in graph.edges:
        if gone.isdisjoint(edge):
            edges[edge] = edges.get(edge, 0) + 1
    if gone:
        ends = [node for node in range(len(graph.nodes)) if node not in {source for source, _ in graph.edges}]
        starts = [node for node in range(len(graph.nodes)) if node not in {target for _, target in graph.edges}]
        alive = _reached(starts, edges) & _reached(ends, {(target, source): 1 for source, target in edges})
        kept_always = {*starts, *ends} - gone
        gone = {node for node in range(len(graph.nodes)) if node not in alive | kept_always}
        edges = {edge: count for edge, count in edges.items() if gone.isdisjoint(edge)}
    for node, label in enumerate(graph.nodes):
        into = {source: count for (source, target), count in edges.items() if target == node}
        out = {target: count for (source, target), count in edges.items() if source == node}
        if label not in graph.skips or node in gone or not into or not out:
            continue
        gone.add(node)
        edges = {edge: count for edge, count in edges.items() if node not in edge}
        for source, before in into.items():
            for target, after in out.items():
                edges[source, target] = edges.get((source, target), 0) + before * after
    kept = [node for node in range(len(graph.nodes)) if node not in gone]
    places = {node: place for place, node in enumerate(kept)}
    return Graph(
        tuple(graph.nodes[node] for node in kept),
        {(places[source], places[target]): count for (source, target), count in edges.items()},
    )


def _reached(starts: Sequence[int], edges: dict[tuple[int, int], int]) -> set[int]:
    found, waiting = set(starts), list(starts)
    while waiting:
        node = waiting.pop()
        following = [target for source, target in edges if source == node and target not in found]
        found.update(following)
        waiting += following
    return found


class Graphing:
    """The simplified graphs of a space's architectures; those that were asked for are remembered."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._known: dict[Architecture, Graph] = {}

    def __call__(self, archs: Sequence[Architecture]) -> list[Graph]:
        known = self._known
        if len(known) + len(archs) > REMEMBERED:
            known.clear()
        for arch in archs:
            if arch not in known:
                known[arch] = simplified(self._space.graph(arch))
        return [known[arch] for arch in archs]


class Labels:
    """Features of nodes: which label it has, which form that has (`# channels, # groups`), and its numbers, as
    logarithms. So labels that were never seen, such as another number of channels, say something as well."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        labels = sorted({label for graph in graphs for label in graph.labels})
        self._labels = {label: position for position, label in enumerate(labels)}
        forms = sorted({_NUMBER.sub("#", label) for label in labels})
        self._forms: dict[str, int] = {}
        width = len(labels)
        for form in forms:
            self._forms[form] = width
            width += 1 + form.count("#")
        self.width = width
        self._known: dict[str, Tensor] = {}

    def features(self, label: str) -> Tensor:
        """[width] of one label."""
        if label not in self._known:
            found = torch.zeros(self.width)
            if label in self._labels:
                found[self._labels[label]] = 1.0
            start = self._forms.get(_NUMBER.sub("#", label))
            if start is not None:
                found[start] = 1.0
                numbers = [math.log1p(float(text)) / 4 for text in _NUMBER.findall(label)]
                found[start + 1 : start + 1 + len(numbers)] = torch.tensor(numbers)
            self._known[label] = found
        return self._known[label]

    def batch(self, graphs: Sequence[Graph]) -> Graphs:
        most = max(len(graph.labels) for graph in graphs)
        words: dict[str, int] = {}
        table = torch.zeros(len(graphs), most, dtype=torch.long)
        places: list[tuple[int, int, int]] = []
        counts: list[float] = []
        for row, graph in enumerate(graphs):
            numbers = [words.setdefault(label, len(words) + 1) for label in graph.labels]
            table[row, : len(numbers)] = torch.tensor(numbers)
            places += [(row, target, source) for source, target in graph.edges]
            counts += graph.edges.values()
        features = torch.stack([torch.zeros(self.width), *(self.features(label) for label in words)])
        reads = torch.zeros(len(graphs), most, most)
        if places:
            reads[tuple(torch.tensor(places).T)] = torch.tensor(counts, dtype=torch.float32)
        return Graphs(features[table], reads, (table > 0).float()[..., None])


class GIN(Parameters):
    """`members` networks of `layers` layers with `hidden` units."""

    def __init__(self, members: int, features: int, hidden: int, layers: int, seed: int) -> None:
        super().__init__(members, seed)
        self.embedding = self.weight(features, hidden, 1.0)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(
                nn.ParameterDict(
                    {
                        "own": self.weight(hidden, hidden, 1.0),
                        "reads": self.weight(hidden, hidden, 1.0),
                        "read": self.weight(hidden, hidden, 1.0),
                        "first": self.bias(hidden),
                        "mix": self.weight(hidden, hidden, 1.0),
                        "second": self.bias(hidden),
                    }
                )
            )
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(members, 1, 1, hidden)) for _ in range(layers)])

    def embed(self, graphs: Graphs) -> Tensor:
        """[members, graphs, 2 * hidden]: the mean and the maximum over the nodes."""
        state = self._apply(graphs.nodes.expand(self.members, -1, -1, -1), self.embedding)
        reads, read = graphs.reads, graphs.reads.transpose(1, 2)
        for layer, scale in zip(self.layers, self.scale, strict=True):
            hidden = self._apply(state, layer["own"], layer["first"])
            hidden = hidden + reads @ self._apply(state, layer["reads"]) + read @ self._apply(state, layer["read"])
            new = self._apply(torch.relu(hidden), layer["mix"], layer["second"])
            state = (state + new) * graphs.real
            state = nn.functional.rms_norm(state, state.shape[-1:]) * scale
        total = (state * graphs.real).sum(2)
        return torch.cat([total / graphs.real.sum(1), (state + (graphs.real - 1) * 1e9).amax(2)], -1)

    def _apply(self, state: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        members, count, most, width = state.shape
        flat = state.reshape(members, count * most, width)
        found = torch.bmm(flat, weight) if bias is None else torch.baddbmm(bias, flat, weight)
        return found.view(members, count, most, -1)
