"""ARGNP: one graph network of states of nodes and of relations, of 2 to 16 vertices (Cai et al., CVPR 2022).

A vertex has a state of nodes and one of relations, the edges of the data. Vertices 0 and 1 are the embedding; each
later one adds up, for each of its two states, what two operations make of both states of an earlier vertex. All states
together make the answer. Text form: per vertex its operations with what they read, nodes before relations, vertices
apart by ` / `, `sum(0) max(1) | sub(0) had(1) / gem3(0) identity(2) | mean(1) gauss(2)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.notation import cut, words
from nas_core.partial import Partial
from nas_core.picker import Picker
from nas_core.space import SearchSpace
from nas_core.task import GRAPH_KINDS, Task
from search_spaces.argnp.relations import relations_of_use
from search_spaces.operators.graph.counted import aggregator_costs, mean_degree, operator_costs
from search_spaces.operators.graph.joined import Joined
from search_spaces.operators.graph.parts import check_names, for_whole_graphs_alone, parts, suffix
from search_spaces.operators.graph.parts import layers as layers_of

if TYPE_CHECKING:
    from torch import nn

NONE, IDENTITY = "none", "identity"
NODE, RELATION = "node", "relation"
STD = "std"
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    NODE: (IDENTITY, "mean", "sum", "max", STD, "gem2", "gem3"),
    RELATION: (IDENTITY, "sub", "gauss", "max", "sum", "mean", "had"),
}
LEAST, MOST = 2, 16
VERTICES = "vertices"
USUAL = ((), OPERATIONS[NODE][1:], ("mean", "max"))
"""Operators, aggregators and readouts of the paper."""
_EDGE = re.compile(r"(.+)\((\d+)\)")


class Edge(NamedTuple):
    """What one state of a vertex reads, and what is done with it."""

    source: int
    operation: str


class Vertex(NamedTuple):
    """The two edges into the state of nodes, and the two into that of relations; sources ascend."""

    node: tuple[Edge, ...]
    relation: tuple[Edge, ...]


class ArgnpSize(SizeConfig):
    """Widths and dropout; "full" is that of the networks for CLUSTER."""

    node: int = Field(55, ge=1, description="width of a state of nodes")
    relation: int = Field(25, ge=1, description="width of a state of relations")
    node_output: int = Field(60, ge=1, description="width of what all states of nodes come to")
    relation_output: int = Field(30, ge=1, description="width of what all states of relations come to (for graphs)")
    dropout: float = Field(0.5, ge=0.0, lt=1.0, description="in the head")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"node": 16, "relation": 8, "node_output": 16, "relation_output": 8},
        "full": {},
    }

    def unused(self, task: Task) -> Mapping[str, str]:
        return {} if task.level == "graph" else {"relation_output": "it is of graphs, which the task does not ask for"}


class Argnp(SearchSpace):
    """Networks of up to `vertices` vertices, each with a state of nodes and one of relations of its own.

    How many there are, from 2 on, is the first of 129 choices (of 16 vertices). A state of nodes aggregates messages
    over neighbours (mean, sum, max, std, the generalised means gem2 and gem3), which are gated and shifted by
    relations; a state of relations is gated and shifted by what both ends of an edge are to each other (sub, gauss,
    max, sum, mean, had). Either may be handed on (identity). So edges matter also where they have no features. Networks
    answer for nodes, for pairs of nodes by both of them, and for graphs by the mean and the largest of their nodes and
    relations.

    The standard deviation is one; with `published_std=True` it is what the paper's program computes instead, which
    forgets to square the mean. `--strategy sgas` searches all of it at once; the paper grows a network, and searches
    at each size what is new.

    Of the catalogue (`search_spaces.operators.graph`), or your own in a file: `aggregators` are what messages may be
    aggregated by, `operators` what may compute a state of nodes instead (the relation is what edges have features of),
    `argnp(operators=('gine', 'my_ops.py:Mine'))`; all `encodings` join the features of every node, and what all
    `readouts`, which are aggregators here, make of nodes and of relations is what a graph is.

    Raises UsageError for other numbers of vertices than 2 to 16, and for operators that cannot take part.
    """

    name = "argnp"
    version = 1
    tasks = GRAPH_KINDS
    Size = ArgnpSize
    why_not_additive = "how wide the map of all states is depends on `vertices`"

    def __init__(
        self,
        vertices: int = MOST,
        published_std: bool = False,
        encodings: Sequence[str] = (),
        operators: Sequence[str] = USUAL[0],
        aggregators: Sequence[str] = USUAL[1],
        readouts: Sequence[str] | None = None,
    ) -> None:
        if type(vertices) is not int or not LEAST <= vertices <= MOST:
            raise UsageError(f"argnp: vertices is {vertices!r}; use {LEAST} to {MOST}")
        if type(published_std) is not bool:
            raise UsageError(f"argnp: published_std is {published_std!r}; use True or False")
        self.vertices, self.published_std = vertices, published_std
        self.parts = parts(operators, aggregators, encodings)
        if published_std and (STD not in self.parts.aggregators or self.parts.aggregators[STD].own):
            raise UsageError(f"argnp: published_std is of the aggregator '{STD}', which is not named; leave it out")
        self.encodings = Joined(self.parts.encodings)
        # Relations are read out as nodes are, so that a readout is an aggregator.
        if readouts is not None:
            for_whole_graphs_alone(self)
        self.readouts = parts(aggregators=USUAL[2] if readouts is None else readouts).aggregators
        if not self.readouts:
            raise UsageError("argnp needs readouts; leave them out for the mean and the maximum")
        self.known = {**self.parts.aggregators, **self.parts.operators}
        check_names("argnp", self.parts.aggregators, {NONE, IDENTITY})
        beside = layers_of("argnp", self.parts.operators, {NONE, IDENTITY, *self.parts.aggregators})
        self.operations: Mapping[str, tuple[str, ...]] = {
            NODE: (IDENTITY, *self.parts.aggregators, *beside),
            RELATION: OPERATIONS[RELATION],
        }
        if not self.known:
            raise UsageError("argnp needs aggregators or operators; leave them out for those of the paper")
        of_fewer = "" if vertices == MOST else f"-{vertices}"
        other = suffix((self.parts.operators, self.parts.aggregators, self.readouts), USUAL)
        self.name = f"argnp{of_fewer}{'-published-std' if published_std else ''}{self.encodings.suffix}{other}"
        self.choices = (
            Choice(VERTICES, tuple(range(LEAST, vertices + 1)), VERTICES, ordered=True),
            *(choice for number in numbers(vertices) for choice in self._choices(number)),
        )

    def findings(self) -> Iterator[str]:
        """What is wrong with parts of a user's own (`nas_core.space.HasFindings`)."""
        yield from self.parts.findings()
        yield from parts(aggregators=[one.reference for one in self.readouts.values() if one.own]).findings()

    def cell(self, arch: Architecture) -> list[Vertex]:
        """Vertices 2, 3, ..., as many as there are."""
        return [
            Vertex(*(tuple(_edge(arch, number, kind, place) for place in (0, 1)) for kind in OPERATIONS))
            for number in numbers(int(arch.values[VERTICES]))
        ]

    def architecture(self, cell: Sequence[Vertex]) -> Architecture:
        """That of these vertices."""
        values: dict[str, Value] = {VERTICES: len(cell)}
        for number, vertex in zip(numbers(len(cell)), cell, strict=True):
            for kind, edges in zip(OPERATIONS, vertex, strict=True):
                for place, edge in enumerate(edges):
                    values[_source(number, kind, place)] = edge.source
                    values[_operation(number, kind, place)] = edge.operation
        return Architecture(self.name, values)

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """The second edge of a state reads a later vertex than the first."""
        first, second, _ = choice.name.rpartition("/edge1/input")
        if not second:
            return choice.options
        before = int(prefix[f"{first}/edge0/input"])
        return tuple(option for option in choice.options if int(option) > before)

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, edge_attr][, counts | pairs])` as the task has it, with an answer per node, pair or
        graph. How many vertices there are is a group, and so is whatever may be read by either state of a vertex.
        Raises UsageError for another space's size and for data that are no graphs."""
        from search_spaces.argnp.network import network_for
        from search_spaces.argnp.operations import Widths

        own, graphs = ArgnpSize.own(size, self.name), task.graphs()
        edges = {
            kind: {
                number: {source: group(kind, source, number) for source in range(number)}
                for number in numbers(self.vertices)
            }
            for kind in OPERATIONS
        }
        return network_for(graphs)(
            picker,
            picker.route(VERTICES, self.choices[0].options),
            edges,
            {kind: (NONE, *operations) for kind, operations in self.operations.items()},
            self.known,
            self.encodings.make(),
            tuple(self.readouts.values()),
            graphs,
            task.outputs,
            Widths(own.node, own.relation, own.node_output, own.relation_output),
            own.dropout,
            self.published_std,
            mean_degree(task),
        )

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        """The number of vertices, and the operation of every edge; None for those that are not there."""
        cell = self.cell(arch)
        found: dict[str, Value | None] = {VERTICES: len(cell)}
        for number in numbers(self.vertices):
            for kind in OPERATIONS:
                edges = getattr(cell[number - 2], kind) if number - 2 < len(cell) else ()
                taken = {edge.source: edge.operation for edge in edges}
                found |= {group(kind, source, number): taken.get(source) for source in range(number)}
        return found

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """The strongest number of vertices; of each state of a vertex the two edges with the strongest operation but
        `none`, the first of equals, and these operations."""
        counts = strengths[VERTICES]
        count = int(self.choices[0].options[counts.index(max(counts))])
        return self.architecture([strongest(number, strengths, self.operations) for number in numbers(count)])

    def group_kind(self, group: str) -> str:
        """Relations are decided apart from nodes, with which the number of vertices goes."""
        return RELATION if group.startswith(f"{RELATION}/") else NODE

    @property
    def rounds(self) -> int:
        """Networks of 2, 4, 8 and 16 vertices, as far as there may be so many."""
        return self.vertices.bit_length() - 1

    def initial(self) -> SearchSpace:
        """The networks of two vertices."""
        return self._round(LEAST, {})

    def divide(self, arch: Architecture) -> SearchSpace:
        """The networks of twice the vertices, for which each was divided in two: the first reads and does what the
        vertex did; what the second does is searched, of what the first reads and of the first itself. What read the
        vertex reads the second. So there are six groups per vertex of `arch`.

        Raises UsageError where the space has not so many vertices.
        """
        cell = self.cell(arch)
        if 2 * len(cell) > self.vertices:
            raise UsageError(
                f"space '{self.name}': a network of {len(cell)} vertices is divided into one of {2 * len(cell)}, but "
                f"there are at most {self.vertices}"
            )
        given: dict[str, Value | None] = {}
        for number, vertex in zip(numbers(len(cell)), cell, strict=True):
            first, second = 2 * number - 2, 2 * number - 1
            for kind, edges in zip(OPERATIONS, vertex, strict=True):
                kept = {second_half(edge.source): edge.operation for edge in edges}
                given |= {group(kind, source, first): kept.get(source) for source in range(first)}
                given |= {group(kind, source, second): None for source in range(second) if source not in {*kept, first}}
        return self._round(2 * len(cell), given)

    def _round(self, count: int, given: Mapping[str, Value | None]) -> SearchSpace:
        """The networks of so many vertices with these edges."""
        options: dict[str, Sequence[Value]] = {name: (NONE, *self.operations[self.group_kind(name)]) for name in given}
        options[VERTICES] = self.choices[0].options
        return Partial(self, f"{self.name}-round{count.bit_length() - 1}", {VERTICES: count, **given}, options)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one pass over the whole graph, or one graph of mean size: those of
        all linear maps, and one per feature of every value that is aggregated, twice for a deviation. Pairs are as
        many as edges; relations that lead to no answer are not there."""
        own, graphs, (nodes, edges) = ArgnpSize.own(size, self.name), task.graphs(), task.graph_size()
        d, r, out, out_r = own.node, own.relation, own.node_output, own.relation_output
        k = graphs.edge_features or 1
        more, params, macs = self.encodings.costs(nodes, edges)
        features = graphs.features + more
        params, macs = params + (features + 1) * d, macs + nodes * features * d
        cell = list(enumerate(self.cell(arch), 2))
        of_use = relations_of_use(
            {
                number: [edge.source for edge in vertex.node if self._reads_relation(edge.operation)]
                for number, vertex in cell
            },
            {number: [edge.source for edge in vertex.relation] for number, vertex in cell},
            graphs.level == "graph",
        )
        if not of_use.isdisjoint({0, 1}):
            params, macs = params + (k + 1) * r, macs + edges * k * r
        for number, vertex in cell:
            for _, operation in vertex.node:
                if operation in self.parts.operators:
                    more, its_macs = operator_costs(self.parts.operators[operation], d, d, nodes, edges, r)
                    params, macs = params + more + (d + 1) * d + 2 * d, macs + its_macs + nodes * d * d
                elif operation != IDENTITY:
                    more, its_macs = self._aggregated(operation, d, nodes, edges)
                    params += 3 * (d + 1) * d + 2 * (r + 1) * r + 2 * (r + 1) * d + 2 * d + more
                    macs += nodes * 3 * d * d + edges * (2 * r * r + 2 * r * d) + its_macs
            for _, operation in vertex.relation:
                if operation != IDENTITY and number in of_use:
                    params += (d + 1) * r + 4 * (r + 1) * r + 2 * r
                    macs += edges * (d * r + 4 * r * r)
        states = len(cell) + 2
        params += states * d * out + 2 * out
        macs += nodes * states * d * out
        answers, inputs, base = nodes, out, out
        if graphs.level == "pair":
            answers, inputs = edges, 2 * out
        elif graphs.level == "graph":
            answers, inputs, base = 1, len(self.readouts) * (out + out_r), out + out_r
            params += states * r * out_r + 2 * out_r
            macs += edges * states * r * out_r
            for readout in self.readouts.values():
                for rows, width in ((nodes, out), (edges, out_r)):
                    more, its_macs = aggregator_costs(readout, width, 1, rows)
                    params, macs = params + more, macs + its_macs
        hidden = max(1, base // 2)
        params += inputs * hidden + 2 * hidden + (hidden + 1) * task.outputs
        macs += answers * hidden * (inputs + task.outputs)
        return {"params": params, "macs": macs}

    def _reads_relation(self, operation: str) -> bool:
        """Whether an operation of nodes reads the state of relations."""
        if operation in self.parts.operators:
            return bool(getattr(self.parts.operators[operation].kind, "takes_edges", False))
        return operation != IDENTITY

    def _aggregated(self, name: str, width: int, nodes: int, edges: int) -> tuple[int, int]:
        """Parameters and multiply-accumulates of an aggregator of messages."""
        if name in OPERATIONS[NODE] and not self.known[name].own:  # without importing torch
            return 0, edges * width * (2 if name == STD else 1)
        return aggregator_costs(self.known[name], width, nodes, edges)

    def identity(self, arch: Architecture) -> str:
        """Its text with vertices in an order that does not depend on their numbers, as far as what they compute tells
        them apart, and without telling the two inputs, which are the same, apart."""
        cell = self.cell(arch)
        colours, placed = _colours(cell), [0, 1]
        while len(placed) < len(cell) + 2:
            ready = [
                number
                for number in numbers(len(cell))
                if number not in placed and all(edge.source in placed for kind in cell[number - 2] for edge in kind)
            ]
            placed.append(min(ready, key=colours.__getitem__))
        place = {number: max(1, position) for position, number in enumerate(placed)}
        renamed = (
            Vertex(*(tuple(sorted(Edge(place[edge.source], edge.operation) for edge in kind)) for kind in cell[at - 2]))
            for at in placed[2:]
        )
        return " / ".join(map(_written, renamed))

    def graph(self, arch: Architecture) -> ArchGraph:
        """The inputs, which are the same, as one node, every vertex, and what they lead to, the output; between them
        every operation, which reads the vertex that it is of."""
        cell = self.cell(arch)
        labels, edges = ["input", *(["vertex"] * len(cell))], []
        for number, vertex in zip(numbers(len(cell)), cell, strict=True):
            for kind, of_kind in zip(OPERATIONS, vertex, strict=True):
                for source, operation in of_kind:
                    edges += [(max(0, source - 1), len(labels)), (len(labels), number - 1)]
                    labels.append(f"{kind} {operation}")
        edges += [(node, len(labels)) for node in range(len(cell) + 1)]
        skips = frozenset(f"{kind} {IDENTITY}" for kind in OPERATIONS)
        return ArchGraph((*labels, "output"), tuple(edges), skips=skips)

    def to_text(self, arch: Architecture) -> str:
        """`sum(0) max(1) | sub(0) had(1) / ...`."""
        return " / ".join(map(_written, self.cell(arch)))

    def from_text(self, text: str) -> Architecture:
        """Raises ValueError, naming what is wrong with the text."""
        vertices = cut(text, "/")
        if not LEAST <= len(vertices) <= self.vertices:
            raise ValueError(
                f"'{text}' has {len(vertices)} vertices; write {LEAST} to {self.vertices}, which are apart by ' / '"
            )
        return self.architecture(
            [_vertex(number, vertex, self.operations) for number, vertex in enumerate(vertices, 2)]
        )

    def _choices(self, number: int) -> Iterator[Choice]:
        when = () if number < LEAST + 2 else (When(VERTICES, tuple(range(number - 1, self.vertices + 1))),)
        for kind, operations in self.operations.items():
            for place in (0, 1):
                sources = tuple(range(place, number - 1 + place))
                yield Choice(_source(number, kind, place), sources, "input", when)
                yield Choice(_operation(number, kind, place), operations, f"{kind} operation", when)


def numbers(count: int) -> range:
    """Those of so many vertices; 0 and 1 are the inputs."""
    return range(2, count + 2)


def second_half(number: int) -> int:
    """The second of the two vertices that a vertex is divided into; the inputs stay one."""
    return number if number < 2 else 2 * number - 1


def group(kind: str, source: int, number: int) -> str:
    """The name of the group of an edge."""
    return f"{kind}/edge.{source}-{number}"


def strongest(
    number: int, strengths: Mapping[str, Sequence[float]], operations: Mapping[str, Sequence[str]] = OPERATIONS
) -> Vertex:
    """Of each state of a vertex the two edges with the strongest operation but `none`."""
    return Vertex(*(_two(number, kind, strengths, operations[kind]) for kind in OPERATIONS))


def _two(
    number: int, kind: str, strengths: Mapping[str, Sequence[float]], operations: Sequence[str]
) -> tuple[Edge, ...]:
    found: dict[Edge, float] = {}
    for source in range(number):
        weights = strengths[group(kind, source, number)][1:]
        best = max(range(len(operations)), key=weights.__getitem__)
        found[Edge(source, operations[best])] = weights[best]
    return tuple(sorted(sorted(found, key=lambda edge: -found[edge])[:2]))


def _colours(cell: Sequence[Vertex]) -> list[str]:
    """Of every vertex what it is computed from and what is computed of it, to any depth (the refinement of Weisfeiler
    and Lehman)."""
    colours = ["input"] * 2 + ["vertex"] * len(cell)
    for _ in cell:
        seen: list[list[tuple[str, str, str, str]]] = [[] for _ in colours]
        for number, vertex in enumerate(cell, 2):
            for kind, edges in zip(OPERATIONS, vertex, strict=True):
                for source, operation in edges:
                    seen[number].append(("from", kind, operation, colours[source]))
                    seen[source].append(("to", kind, operation, colours[number]))
        # The inputs are the same, whoever reads which.
        colours[2:] = [
            hashlib.sha256(repr((colours[number], sorted(seen[number]))).encode()).hexdigest()
            for number in numbers(len(cell))
        ]
    return colours


def _edge(arch: Architecture, number: int, kind: str, place: int) -> Edge:
    return Edge(
        int(arch.values[_source(number, kind, place)]),
        str(arch.values[_operation(number, kind, place)]),
    )


def _source(number: int, kind: str, place: int) -> str:
    return f"vertex{number}/{kind}/edge{place}/input"


def _operation(number: int, kind: str, place: int) -> str:
    return f"vertex{number}/{kind}/edge{place}/operation"


def _written(vertex: Vertex) -> str:
    return " | ".join(" ".join(f"{edge.operation}({edge.source})" for edge in kind) for kind in vertex)


def _vertex(number: int, text: str, operations: Mapping[str, Sequence[str]]) -> Vertex:
    kinds = cut(text, "|")
    if len(kinds) != len(operations):
        raise ValueError(f"vertex {number} is '{text.strip()}'; write operations of nodes, ' | ', and of relations")
    said = zip(operations.items(), kinds, strict=True)
    return Vertex(*(tuple(_edges(number, kind, part, known)) for (kind, known), part in said))


def _edges(number: int, kind: str, text: str, operations: Sequence[str]) -> Iterator[Edge]:
    said, before = words(text), -1
    if len(said) != 2:
        raise ValueError(f"vertex {number} has {len(said)} {kind} operations, not 2: '{text.strip()}'")
    for word in said:
        found = _EDGE.fullmatch(word)
        if found is None or found[1] not in operations:
            known = ", ".join(operations)
            raise ValueError(f"vertex {number} has '{word}'; write one of {known}, and what it reads, as in 'sum(0)'")
        if str(int(found[2])) != found[2] or not before < int(found[2]) < number:
            raise ValueError(f"vertex {number} has '{word}', but reads two of 0 to {number - 1} in ascending order")
        before = int(found[2])
        yield Edge(before, found[1])
