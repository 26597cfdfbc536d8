"""GNAS: graph networks as trees of filters and aggregators (Cai et al., CVPR 2021).

A layer is a cell of three levels with `n` vertices each: filters, which read the layer's input (vertex 0) or an earlier
filter; aggregators, each after its filter; filters again, which read any aggregator. Every vertex has one parent, and
all of them together make the layer's output. Each layer has a cell of its own. Text form: the vertices in their order
with their parents, `dense(0) sparse(0) sum sum dense(3) sparse(3)`, cells apart by ` / `.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.notation import cut, words
from nas_core.relax import Picker
from nas_core.space import SearchSpace
from nas_core.task import GRAPH_KINDS, Task
from search_spaces.operators.graph.counted import (
    aggregator_costs,
    mean_degree,
    operator_costs,
    plain,
    readout_costs,
)
from search_spaces.operators.graph.joined import Joined
from search_spaces.operators.graph.parts import check_names, for_whole_graphs_alone, parts, suffix
from search_spaces.operators.graph.parts import layers as layers_of

if TYPE_CHECKING:
    from torch import nn

NONE, IDENTITY = "none", "identity"
FILTERS = (IDENTITY, "sparse", "dense")
AGGREGATORS = (IDENTITY, "mean", "sum", "max")
MOST = {"layers": 64, "vertices": 8}
USUAL = ((), AGGREGATORS[1:], ("mean",))
"""Operators, aggregators and readouts of the paper."""
_VERTEX = re.compile(r"(.+?)(?:\((\d+)\))?")


class Vertex(NamedTuple):
    """A vertex of a cell: its parent, and what is done with that."""

    source: int
    operation: str


Cell = tuple[Vertex, ...]
"""Vertices 1 to 3n of a cell, in their order."""


class GnasSize(SizeConfig):
    """Width and dropout; "full" is that of the networks for CLUSTER."""

    hidden: int = Field(70, ge=1, description="width of every vertex")
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="of what a layer adds to its input")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"hidden": 16}, "full": {}}


class Gnas(SearchSpace):
    """Cells of three levels, one per layer: filters, aggregators and filters, every vertex with one parent.

    Of `layers` cells with `vertices` vertices per level each is one of 10,368 (2 vertices), 7,558,272 (3) or
    10,319,560,704 (4). A filter gates the values of a vertex, per channel (dense) or per node (sparse), by them and the
    layer's input; an aggregator sums or averages them over neighbours, or takes the largest; either may be left out
    (identity), so that how many hops a layer reaches is searched too. Networks end in a head for nodes, pairs of nodes
    or graphs, as the task wants it.

    `--strategy darts -s strategy.bilevel=false` is the search of the paper's program: the architecture learns from the
    batches that the weights learn from. There a vertex keeps the parent with the largest logit of an operation; here
    with the largest weight, of the softmax of each edge.

    Of the catalogue (`search_spaces.operators.graph`), or your own in a file: `aggregators` are what neighbours may be
    aggregated by, after a linear map and a rectifier, and `operators` what may stand in the place of an aggregator,
    `gnas(operators=('gcn', 'my_ops.py:Mine'))`; all `encodings` join the features of every node, and all `readouts`
    side by side are what a graph is of its nodes.

    Raises UsageError for numbers that are not 1 to 64 layers and 1 to 8 vertices, and for operators that cannot take
    part.
    """

    name = "gnas"
    version = 1
    tasks = GRAPH_KINDS
    Size = GnasSize

    def __init__(
        self,
        layers: int = 4,
        vertices: int = 2,
        encodings: Sequence[str] = (),
        operators: Sequence[str] = USUAL[0],
        aggregators: Sequence[str] = USUAL[1],
        readouts: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("layers", layers), ("vertices", vertices)):
            if type(value) is not int or not 1 <= value <= MOST[name]:
                raise UsageError(f"gnas: {name} is {value!r}; use 1 to {MOST[name]}")
        self.layers, self.vertices = layers, vertices
        if readouts is not None:
            for_whole_graphs_alone(self)
        self.parts = parts(operators, aggregators, encodings, USUAL[2] if readouts is None else readouts)
        self.encodings = Joined(self.parts.encodings)
        if not self.parts.readouts:
            raise UsageError("gnas needs readouts; leave them out for the mean")
        check_names("gnas", self.parts.aggregators, {NONE, *FILTERS})
        beside = layers_of("gnas", self.parts.operators, {NONE, *FILTERS, *self.parts.aggregators})
        self.aggregators = (IDENTITY, *self.parts.aggregators, *beside)
        if len(self.aggregators) == 1:
            raise UsageError("gnas needs aggregators or operators; leave them out for mean, sum and max")
        of_cells = "" if (layers, vertices) == (4, 2) else f"-{layers}x{vertices}"
        said = (self.parts.operators, self.parts.aggregators, self.parts.readouts)
        self.name = f"gnas{of_cells}{self.encodings.suffix}{suffix(said, USUAL)}"
        self.choices = tuple(choice for layer in range(layers) for choice in self._choices(layer))
        has_it = not of_cells and "sum" in self.aggregators
        self.named: Mapping[str, Architecture] = {"cluster": self.from_text(CLUSTER)} if has_it else {}

    def findings(self) -> Iterator[str]:
        """What is wrong with parts of a user's own (`nas_core.space.HasFindings`)."""
        yield from self.parts.findings()

    def cells(self, arch: Architecture) -> list[Cell]:
        """The cell of every layer."""
        return [tuple(self._vertex(arch, layer, number) for number in self.numbers) for layer in range(self.layers)]

    @property
    def numbers(self) -> range:
        """Those of the vertices of a cell; 0 is the layer's input."""
        return range(1, 3 * self.vertices + 1)

    def sources(self, number: int) -> tuple[int, ...]:
        """What a vertex may read."""
        n = self.vertices
        if number <= n:
            return tuple(range(number))
        return (number - n,) if number <= 2 * n else tuple(range(n + 1, 2 * n + 1))

    def operations(self, number: int) -> tuple[str, ...]:
        """What may be done with that."""
        return self.aggregators if self.vertices < number <= 2 * self.vertices else FILTERS

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, counts | pairs])` with an answer per node, graph or pair. Every edge of every cell is
        a group, of an aggregator its operations, of a filter `none` too. Raises UsageError for another space's size,
        and for data that are no graphs or whose edges have features."""
        from search_spaces.gnas.network import network_for

        own, graphs = GnasSize.own(size, self.name), task.graphs(edge_features=False)
        edges = [
            {
                number: {source: edge(layer, source, number) for source in self.sources(number)}
                for number in self.numbers
            }
            for layer in range(self.layers)
        ]
        made = self._made(mean_degree(task))
        operations = {number: {name: made[name] for name in self._options(number)} for number in self.numbers}
        readouts = tuple(self.parts.readouts.values())
        return network_for(graphs)(
            picker, edges, operations, self.encodings.make(), readouts, graphs, task.outputs, own.hidden, own.dropout
        )

    def _made(self, degree: float) -> Mapping[str, Any]:
        """What makes every operation of a width, by name."""
        from search_spaces.gnas.network import MADE, aggregated, stepped

        return {
            **MADE,
            **{name: aggregated(one) for name, one in self.parts.aggregators.items() if not plain(one)},
            **{name: stepped(one, degree) for name, one in self.parts.operators.items()},
        }

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        """The operation of every edge; None for those that are not there."""
        found: dict[str, Value | None] = {}
        for layer, cell in enumerate(self.cells(arch)):
            for number, vertex in zip(self.numbers, cell, strict=True):
                for source in self.sources(number):
                    found[edge(layer, source, number)] = vertex.operation if source == vertex.source else None
        return found

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """Every vertex keeps the parent with the strongest operation but `none`, and that operation; the first of
        equals."""
        return self._architecture(
            [
                tuple(self._strongest(layer, number, strengths) for number in self.numbers)
                for layer in range(self.layers)
            ]
        )

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one pass over the whole graph, or one graph of mean size: those of
        all linear maps, and one per feature of every message and of every node in a mean over nodes. Pairs are as many
        as edges."""
        d, (nodes, edges) = GnasSize.own(size, self.name).hidden, task.graph_size()
        graphs = task.graphs(edge_features=False)
        answers = {"node": nodes, "graph": 1, "pair": edges}[graphs.level]
        wide = 2 * d if graphs.level == "pair" else d
        linear, wrapper = (d + 1) * d, (d + 1) * d + 2 * d
        more, params, macs = self.encodings.costs(nodes, edges)
        features = graphs.features + more
        if graphs.level == "graph":
            wide = 0
            for readout in self.parts.readouts.values():
                more, its_params, its_macs = readout_costs(readout, d, nodes)
                wide, params, macs = wide + more, params + its_params, macs + its_macs
        params += features * d + 3 * (wide + 1) * wide + (wide + 1) * task.outputs
        macs += nodes * features * d + answers * (3 * wide * wide + wide * task.outputs)
        # Of each operation before its wrapper: parameters, multiply-accumulates per node and per edge.
        own = {
            "dense": (linear + d * d, 2 * d * d, 0),
            "sparse": (linear + d * d + d, 2 * d * d + d, 0),
            "sum": (0, 0, d),
            "mean": (linear, d * d, d),
            "max": (linear, d * d, d),
        }
        for cell in self.cells(arch):
            params += (3 * self.vertices * d + 1) * d + 2 * d
            macs += nodes * 3 * self.vertices * d * d
            for _, operation in cell:
                if operation in FILTERS[1:] or self._plain(operation):
                    more, per_node, per_edge = own[operation]
                    params, macs = params + more + wrapper, macs + nodes * (per_node + d * d) + edges * per_edge
                elif operation != IDENTITY:
                    more, its_macs = self._counted(operation, d, nodes, edges)
                    params, macs = params + more + wrapper, macs + its_macs + nodes * d * d
        return {"params": params, "macs": macs}

    def _plain(self, operation: str) -> bool:
        """Whether it is one of the paper's aggregators."""
        return operation in self.parts.aggregators and plain(self.parts.aggregators[operation])

    def _counted(self, operation: str, width: int, nodes: int, edges: int) -> tuple[int, int]:
        """Parameters and multiply-accumulates of an operation before its wrapper that is none of the paper's."""
        if operation in self.parts.operators:
            return operator_costs(self.parts.operators[operation], width, width, nodes, edges)
        more, macs = aggregator_costs(self.parts.aggregators[operation], width, nodes, edges)
        return more + (width + 1) * width, macs + nodes * width * width

    def identity(self, arch: Architecture) -> str:
        """Its cells with the vertices of each level in one canonical order: to renumber them renumbers what the layer's
        linear map reads, so that the same functions are computed."""
        return " / ".join(map(self._canonical, self.cells(arch)))

    def graph(self, arch: Architecture) -> ArchGraph:
        """Layer after layer: its vertices, each with its parent, and what they all lead to, the layer's output."""
        labels, edges, last = ["input"], [], 0
        for cell in self.cells(arch):
            first = len(labels)
            places = [last, *range(first, first + len(cell))]
            labels += [vertex.operation for vertex in cell]
            edges += [(places[vertex.source], place) for vertex, place in zip(cell, places[1:], strict=True)]
            edges += [(place, len(labels)) for place in places]
            last = len(labels)
            labels.append("layer")
        return ArchGraph(tuple(labels), tuple(edges), skips=frozenset({IDENTITY}))

    def to_text(self, arch: Architecture) -> str:
        """`dense(0) sparse(0) sum sum dense(3) sparse(3) / ...`, the parents of aggregators left out."""
        return " / ".join(
            " ".join(
                vertex.operation if len(self.sources(number)) == 1 < number else f"{vertex.operation}({vertex.source})"
                for number, vertex in zip(self.numbers, cell, strict=True)
            )
            for cell in self.cells(arch)
        )

    def from_text(self, text: str) -> Architecture:
        """Raises ValueError, naming what is wrong with the text."""
        cells = [words(cell) for cell in cut(text, "/")]
        if len(cells) != self.layers:
            raise ValueError(f"'{text}' has {len(cells)} cells, the space has {self.layers}; they are apart by ' / '")
        arch = self._architecture([tuple(self._read(layer, cell)) for layer, cell in enumerate(cells)])
        if self.to_text(arch) != " / ".join(" ".join(cell) for cell in cells):
            raise ValueError(f"'{text}' is written '{self.to_text(arch)}'")
        return arch

    def _read(self, layer: int, cell: Sequence[str]) -> Iterator[Vertex]:
        if len(cell) != len(self.numbers):
            raise ValueError(f"cell {layer} has {len(cell)} vertices, not {len(self.numbers)}: '{' '.join(cell)}'")
        for number, word in zip(self.numbers, cell, strict=True):
            found = _VERTEX.fullmatch(word)
            if found is None or found[1] not in self.operations(number):
                known = ", ".join(self.operations(number))
                raise ValueError(f"vertex {number} of cell {layer} is '{word}'; write one of {known}, and its parent")
            source = self.sources(number)[0] if found[2] is None else int(found[2])
            if source not in self.sources(number):
                raise ValueError(f"vertex {number} of cell {layer} reads {source}, and may read {self.sources(number)}")
            yield Vertex(source, found[1])

    def _options(self, number: int) -> tuple[str, ...]:
        """The operations of a group of edges into a vertex."""
        operations = self.operations(number)
        return operations if operations == self.aggregators else (NONE, *operations)

    def _choices(self, layer: int) -> Iterator[Choice]:
        for number in self.numbers:
            if len(self.sources(number)) > 1:
                yield Choice(_source(layer, number), self.sources(number), "input")
            yield Choice(_operation(layer, number), self.operations(number), "operation")

    def _vertex(self, arch: Architecture, layer: int, number: int) -> Vertex:
        source = arch.values.get(_source(layer, number), self.sources(number)[0])
        return Vertex(int(source), str(arch.values[_operation(layer, number)]))

    def _architecture(self, cells: Sequence[Cell]) -> Architecture:
        values: dict[str, Value] = {}
        for layer, cell in enumerate(cells):
            for number, vertex in zip(self.numbers, cell, strict=True):
                if len(self.sources(number)) > 1:
                    values[_source(layer, number)] = vertex.source
                values[_operation(layer, number)] = vertex.operation
        return Architecture(self.name, values)

    def _strongest(self, layer: int, number: int, strengths: Mapping[str, Sequence[float]]) -> Vertex:
        options = self._options(number)
        weights = {
            Vertex(source, operation): strengths[edge(layer, source, number)][options.index(operation)]
            for source in self.sources(number)
            for operation in self.operations(number)
        }
        return max(weights, key=weights.__getitem__)

    def _canonical(self, cell: Cell) -> str:
        """A cell as the tree that it is: every vertex with what reads it, sorted."""
        readers: dict[int, list[int]] = {}
        for number, vertex in zip(self.numbers, cell, strict=True):
            readers.setdefault(vertex.source, []).append(number)

        def written(number: int) -> str:
            # Levels are told apart: an identity of one is not that of another.
            level = (number - 1) // self.vertices
            below = sorted(map(written, readers.get(number, ())))
            return f"{level}{cell[number - 1].operation}({','.join(below)})"

        return ",".join(sorted(map(written, readers[0])))


def edge(layer: int, source: int, number: int) -> str:
    """The name of a group."""
    return f"cell{layer}/edge.{source}-{number}"


def _source(layer: int, number: int) -> str:
    return f"cell{layer}/vertex{number}/input"


def _operation(layer: int, number: int) -> str:
    return f"cell{layer}/vertex{number}/operation"


CLUSTER = (
    "dense(0) sparse(1) sum sum dense(3) sparse(3) / sparse(0) identity(0) sum sum sparse(3) dense(4) / "
    "sparse(0) identity(0) sum sum dense(4) sparse(3) / dense(0) dense(0) sum sum sparse(3) dense(4)"
)
"""The genotype for CLUSTER that the paper's program comes with."""
