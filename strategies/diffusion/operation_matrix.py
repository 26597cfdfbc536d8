"""Operation matrices: architectures of a fixed graph as one-hot rows of operations, and back.

An et al., "DiffusionNAG: Predictor-guided Neural Architecture Generation with Diffusion Models", ICLR 2024, section 3:
where all architectures of a space have the same nodes and edges, the operations of the nodes alone say which one it
is. Nodes are numbered breadth first in topological order and the vocabulary begins with the labels that never change,
which for NAS-Bench-201 are the published numbering and vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import SearchSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float32]
    Masks = NDArray[numpy.bool_]

PROBES = 32
"""Architectures that show what a choice does to the graph."""

Cases = list[tuple[Architecture, ArchGraph]]


class OperationMatrix:
    """The `count` nodes N of a space's graphs, and the operations V that label them.

    `adjacency` [N, N] has the edges (from, to), `reach` [N, N] whether a node is reached from another or is it. A node
    either has the same label in all architectures or says what one choice is, which is found by probing. `labels`: for
    each choice the node, and the column of each option; None for a choice of one option. `support` [N, V] are the
    labels that each node can have.

    Raises UsageError for a space whose graphs are not of this kind, with the reason.
    """

    def __init__(self, space: SearchSpace, who: str = "diffusion-nag") -> None:
        self.space = space
        try:
            graph, order, choices = _probed(space)
        except _Unlike as reason:
            raise UsageError(
                f"strategy: {who} needs a space of fixed graphs in which every choice labels one node, but in space "
                f"'{space.name}' {reason}; use diffusion"
            ) from None
        place = {node: position for position, node in enumerate(order)}
        self.count = len(order)
        self.adjacency: Masks = graph.adjacency()[numpy.ix_(order, order)]
        self.reach = _closure(self.adjacency)
        labelled = {named.node for named in choices if named is not None}
        constant = {place[node]: graph.nodes[node] for node in order if node not in labelled}
        texts = [label for named in choices if named is not None for label in named.labels]
        self.vocabulary = tuple(dict.fromkeys([*constant.values(), *texts]))
        column = {label: position for position, label in enumerate(self.vocabulary)}
        self._fixed = list(constant)
        self._fixed_columns = [column[label] for label in constant.values()]
        self.labels = tuple(
            None if named is None else (place[named.node], tuple(column[label] for label in named.labels))
            for named in choices
        )
        self.support: Masks = numpy.zeros((self.count, len(self.vocabulary)), dtype=bool)
        self.support[self._fixed, self._fixed_columns] = True
        for label in self.labels:
            if label is not None:
                self.support[label[0], list(label[1])] = True

    def encode(self, archs: Sequence[Architecture]) -> Floats:
        """Matrices [n, N, V] with 1 at the label of each node and -1 elsewhere."""
        rows = numpy.full((len(archs), self.count, len(self.vocabulary)), -1, numpy.float32)
        rows[:, self._fixed, self._fixed_columns] = 1
        for row, arch in zip(rows, archs, strict=True):
            for choice, label in zip(self.space.choices, self.labels, strict=True):
                if label is not None:
                    node, columns = label
                    row[node, columns[choice.index(arch.values[choice.name])]] = 1
        return rows

    def decode(self, rows: NDArray[numpy.floating]) -> list[Architecture | None]:
        """The architectures of real matrices [n, N, V]; None where it is none.

        As published, an entry above 0 is a one, and a matrix with a row of no or several ones is none, nor one with
        a label that its node cannot have.
        """
        ones = rows > 0
        single = (ones.sum(-1) == 1).all(-1)
        found = ones.argmax(-1)
        single &= (found[:, self._fixed] == self._fixed_columns).all(-1)
        return [
            self._architecture(row) if whole else None
            for row, whole in zip(found.tolist(), single.tolist(), strict=True)
        ]

    def _architecture(self, found: Sequence[int]) -> Architecture | None:
        values: dict[str, Value] = {}
        for choice, label in zip(self.space.choices, self.labels, strict=True):
            option = 0
            if label is not None:
                node, columns = label
                if found[node] not in columns:
                    return None
                option = columns.index(found[node])
            values[choice.name] = choice.options[option]
        arch = Architecture(self.space.name, values)
        return arch if self.space.illegal(arch) is None else None


class _Unlike(Exception):
    """Why a space has no operation matrix: what some choice does."""


class _Named(NamedTuple):
    """The node that a choice labels, and the label of each of its options."""

    node: int
    labels: tuple[str, ...]


def _probed(space: SearchSpace) -> tuple[ArchGraph, list[int], list[_Named | None]]:
    """A graph, its nodes in order, and what each choice labels (None: it has one option). Raises _Unlike."""
    rng = generator("skeleton", space.name)  # a purpose stays, whatever things are called now
    bases = [moves.sample(space, rng) for _ in range(PROBES)]
    cases = [(arch, space.graph(arch)) for arch in bases]
    first = cases[0][1]
    for choice in space.choices:
        for arch, graph in cases:
            if any(_shape(space.graph(other)) != _shape(graph) for other in _changed(space, arch, choice)):
                raise _Unlike(f"choice '{choice.name}' changes which nodes or edges there are")
        if choice.when:
            raise _Unlike(f"choice '{choice.name}' is not always there")
    if not first.fixed_topology or any(_shape(graph) != _shape(first) for _, graph in cases):
        raise _Unlike("graphs are not declared to have the same nodes and edges (ArchGraph.fixed_topology)")
    named = [_named(space, choice, cases) for choice in space.choices]
    owner: dict[int, str] = {}
    for choice, found in zip(space.choices, named, strict=True):
        if found is not None and owner.setdefault(found.node, choice.name) != choice.name:
            raise _Unlike(f"choices '{owner[found.node]}' and '{choice.name}' label the same node")
    for arch, graph in cases:
        for node, label in enumerate(graph.nodes):
            if node not in owner and label != first.nodes[node]:
                raise _Unlike(f"the label of node {node} is that of no single choice")
        for choice, found in zip(space.choices, named, strict=True):
            if found is not None and graph.nodes[found.node] != found.labels[choice.index(arch.values[choice.name])]:
                raise _Unlike(f"how choice '{choice.name}' labels its node depends on other choices")
    return first, _breadth_first(first), named


def _named(space: SearchSpace, choice: Choice, cases: Cases) -> _Named | None:
    """Raises _Unlike."""
    if len(choice.options) == 1:
        return None
    nodes: set[int] = set()
    labels: dict[Value, str] = {}
    for arch, graph in cases:
        for other in _changed(space, arch, choice, alone=True):
            there = space.graph(other)
            moved = [node for node, (one, two) in enumerate(zip(graph.nodes, there.nodes, strict=True)) if one != two]
            values = f"'{arch.values[choice.name]}' and '{other.values[choice.name]}' of choice '{choice.name}'"
            if not moved:
                raise _Unlike(f"{values} are the same graph")
            if len(moved) > 1:
                raise _Unlike(f"choice '{choice.name}' changes the labels of {len(moved)} nodes")
            nodes.add(moved[0])
            labels[arch.values[choice.name]] = graph.nodes[moved[0]]
            labels[other.values[choice.name]] = there.nodes[moved[0]]
    if len(nodes) != 1:
        what = "labels different nodes" if nodes else "cannot be changed alone"
        raise _Unlike(f"choice '{choice.name}' {what}")
    missing = [option for option in choice.options if option not in labels]
    if missing:
        raise _Unlike(f"'{missing[0]}' of choice '{choice.name}' cannot be taken by changing it alone")
    texts = tuple(labels[option] for option in choice.options)
    if len(set(texts)) != len(texts):
        raise _Unlike(f"two options of choice '{choice.name}' have the same label")
    return _Named(nodes.pop(), texts)


def _changed(space: SearchSpace, arch: Architecture, choice: Choice, alone: bool = False) -> Iterator[Architecture]:
    """The architecture with each other option of a choice, `alone`: where nothing else has to change."""
    if choice.name not in arch.values:
        return
    for option in choice.options:
        if option == arch.values[choice.name]:
            continue
        values = {**arch.values, choice.name: option}
        other = moves.complete(space, values, moves.first)
        if other.values.get(choice.name) == option and (not alone or dict(other.values) == values):
            yield other


def _shape(graph: ArchGraph) -> tuple[int, frozenset[tuple[int, int]]]:
    return len(graph.nodes), frozenset(graph.edges)


def _breadth_first(graph: ArchGraph) -> list[int]:
    """Topological order in which a node comes before those that became ready after it."""
    waiting = [len(graph.parents(node)) for node in range(len(graph.nodes))]
    ready = deque(node for node, count in enumerate(waiting) if count == 0)
    order: list[int] = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for source, target in sorted(graph.edges):
            if source == node:
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
    return order


def _closure(adjacency: Masks) -> Masks:
    """Transitive closure, with every node reaching itself (Warshall's algorithm)."""
    reach = adjacency | numpy.eye(len(adjacency), dtype=bool)
    for middle in range(len(reach)):
        reach |= reach[:, middle, None] & reach[None, middle]
    return reach
