"""Graph networks whose every layer is chosen component by component, each component a kind of choice: the spaces of
Auto-GNN and of GraphNAS.

The last layer is as wide as the answer and takes the mean of its heads, so that it has no hidden size to choose; its
activation is chosen as those of all layers are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.notation import cut, words
from nas_core.space import SearchSpace, check_legal
from nas_core.task import GRAPH_KINDS, Graphs, Task
from search_spaces.auto_gnn.components import COMBINED, POOLED, Components
from search_spaces.operators.graph import AGGREGATOR
from search_spaces.operators.graph.counted import aggregator_costs, mean_degree, operator_costs, readout_costs
from search_spaces.operators.graph.joined import Joined
from search_spaces.operators.graph.parts import for_whole_graphs_alone, suffix
from search_spaces.operators.graph.parts import layers as layers_of
from search_spaces.operators.graph.parts import parts as parts_of
from search_spaces.operators.operator import Operator

if TYPE_CHECKING:
    from torch import nn

HIDDEN = "hidden"
ORDERED = frozenset({HIDDEN, "heads"})
MOST = 16
READOUTS = ("mean",)
VECTORS = {"const": 0, "gcn": 0, "gat": 2, "sym-gat": 2, "cos": 2, "linear": 1, "gene-linear": 2}
"""How many vectors each head of an attention function has, which every node is multiplied by."""
OPERATOR, ATTENTION = "operator", "attention"
BY_ATTENTION = (ATTENTION, "heads", "aggregate")
"""What is not chosen of a layer whose neighbours an operator adds up."""
OF_EDGES = frozenset({"cos", "gene-linear"})
"""Attention functions that multiply at every edge."""


class LayerwiseSize(SizeConfig):
    """What is no choice."""

    dropout: float = Field(0.6, ge=0.0, lt=1.0, description="of features, of states, and of attention")
    batchnorm: bool = Field(False, description="batch normalisation in all layers but the last")
    residual: bool = Field(False, description="a linear map of a layer's input is added before its activation")
    embedding: int = Field(64, ge=1, description="width of the last layer where pairs of nodes are asked for")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {}}

    def unused(self, task: Task) -> Mapping[str, str]:
        return {} if task.level == "pair" else {"embedding": "it is of pairs of nodes, which the task does not ask for"}


class Layerwise(SearchSpace):
    """A space says its `family`, its `classes` (options by component), what of a layer has to be the `same` for another
    one to take over its weights, beside their shapes, and its `references`: by name a layer, and the last layer;
    and which of its aggregations are none of the catalogue (`aggregations`).

    Of the catalogue (`search_spaces.operators.graph`), or your own in a file: `aggregators` are the options of the
    aggregation; `operators` what may stand in the place of attention, heads and aggregation, which becomes a choice
    per layer; all `encodings` join the features of every node; one of `readouts` makes a graph's answer of its nodes'.

    Raises UsageError for numbers of layers that are not 2 to 16, and for operators that cannot take part.
    """

    family: ClassVar[str]
    classes: ClassVar[Mapping[str, tuple[Value, ...]]]
    same: ClassVar[tuple[str, ...]]
    references: ClassVar[Mapping[str, tuple[str, str]]]
    aggregations: ClassVar[tuple[str, ...]] = ()

    tasks = GRAPH_KINDS
    Size = LayerwiseSize
    why_not_relaxable = "its choices set widths, so the candidates of one have no common shape"

    def __init__(
        self,
        layers: int = 2,
        operators: Sequence[str] = (),
        aggregators: Sequence[str] | None = None,
        encodings: Sequence[str] = (),
        readouts: Sequence[str] | None = None,
    ) -> None:
        if type(layers) is not int or not 2 <= layers <= MOST:
            raise UsageError(f"{self.family}: layers is {layers!r}; use 2 to {MOST}")
        usual = [str(name) for name in self.classes["aggregate"]]
        given: Any = usual if aggregators is None else aggregators
        listed = isinstance(given, list | tuple)
        beside = [name for name in given if name in self.aggregations] if listed else []
        of_catalogue = [name for name in given if name not in beside] if listed else given
        if readouts is not None:
            for_whole_graphs_alone(self)
        self.parts = parts_of(operators, of_catalogue, encodings, READOUTS if readouts is None else readouts)
        if not (self.parts.aggregators or beside):
            raise UsageError(f"{self.family} needs aggregators; leave them out for {', '.join(usual)}")
        if len(self.parts.readouts) != 1:
            raise UsageError(
                f"{self.family} has one readout, of what the nodes answer; readouts has {len(self.parts.readouts)}"
            )
        self.readout = next(iter(self.parts.readouts.values()))
        self.encodings = Joined(self.parts.encodings)
        aggregates = (*self.parts.aggregators, *beside)
        self.options: dict[str, tuple[Value, ...]] = {**self.classes, "aggregate": aggregates}
        if self.parts.operators:
            labels = layers_of(self.family, self.parts.operators, {ATTENTION})
            self.options = {HIDDEN: self.options[HIDDEN], OPERATOR: (ATTENTION, *labels), **self.options}
        self.layers = layers
        said = (self.parts.operators, aggregates, self.parts.encodings, self.parts.readouts)
        other = suffix(said, ((), usual, (), READOUTS))
        self.name = f"{self.family}{'' if layers == 2 else f'-{layers}'}{other}"
        self.choices = tuple(
            Choice(f"layer{layer}/{kind}", self.options[kind], kind, self._when(layer, kind), ordered=kind in ORDERED)
            for layer in range(layers)
            for kind in self._kinds(layer)
        )
        self.named: Mapping[str, Architecture] = MappingProxyType(dict(self._named()))
        self.left_out: Mapping[str, str] = {
            name: "its layers add neighbours up, and 'sum' is none of the aggregators"
            for name in self.references
            if name not in self.named
        }

    def _when(self, layer: int, kind: str) -> tuple[When, ...]:
        by_operator = bool(self.parts.operators) and kind in BY_ATTENTION
        return (When(f"layer{layer}/{OPERATOR}", (ATTENTION,)),) if by_operator else ()

    def _named(self) -> Iterator[tuple[str, Architecture]]:
        """The references, as far as their aggregation is there."""
        for name, (inner, last) in self.references.items():
            values: dict[str, Value] = {}
            for layer in range(self.layers):
                is_last = layer == self.layers - 1
                said = iter((last if is_last else inner).split())
                for kind in self._kinds(layer):
                    known = {str(option): option for option in self.classes.get(kind, ())}
                    values[f"layer{layer}/{kind}"] = ATTENTION if kind == OPERATOR else known[next(said)]
            if all(values[choice.name] in choice.options for choice in self.choices):
                yield name, Architecture(self.name, values)

    def findings(self) -> Iterator[str]:
        """What is wrong with parts of a user's own (`nas_core.space.HasFindings`)."""
        yield from self.parts.findings()

    def of_layer(self, values: Mapping[str, Any]) -> Components:
        """What the values of a layer's components mean."""
        raise NotImplementedError

    def components(self, arch: Architecture, outputs: int) -> list[Components]:
        """Those of every layer, the last one `outputs` wide."""
        return [self._components({HIDDEN: outputs, **self._values(arch, layer)}) for layer in range(self.layers)]

    def _components(self, values: Mapping[str, Any]) -> Components:
        """An operator is one head as wide as the layer, of whose attention and aggregation nothing is chosen."""
        operator = self.parts.operators.get(values.get(OPERATOR, ATTENTION))
        without = {kind: value for kind, value in values.items() if kind != OPERATOR}
        if operator is None:
            return self.of_layer(without)
        plain: dict[str, Any] = {ATTENTION: "const", "heads": 1, "aggregate": "sum"}
        return replace(self.of_layer({**plain, **without}), operator=operator, alike=self.alike(values))

    def aggregator(self, name: str) -> Operator:
        """An option of the aggregation, or the sum."""
        return self.parts.aggregators.get(name) or AGGREGATOR.operator("sum")

    def alike(self, values: Mapping[str, Any]) -> Hashable:
        """What has to be the same for weights to mean the same, beside their shapes."""
        own = [values[OPERATOR]] if OPERATOR in values else []
        aggregate = values.get("aggregate")
        if aggregate not in self.classes["aggregate"]:  # those have no weights
            own.append(aggregate)
        return (self.family, *(values.get(kind) for kind in self.same), *own)

    def layer_signatures(self, arch: Architecture) -> Mapping[str, Hashable]:
        """What every layer's weights mean (`search_spaces.auto_gnn.network.Layer.signature`); the first one's are for
        the features of the data, the last one's for the answers that are asked for."""
        found: dict[str, Hashable] = {}
        width: Hashable = "features"
        for layer in range(self.layers):
            values: Any = {HIDDEN: "outputs", **self._values(arch, layer)}
            hidden, heads = values[HIDDEN], values.get("heads", 1)
            found[f"layer{layer}"] = width, hidden, heads, self.alike(values)
            width = hidden * heads if isinstance(hidden, int) else (hidden, heads)
        return found

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, counts | pairs])` as the task has it, to an answer per node, graph or pair.

        Raises UsageError for an illegal architecture, a task that is no graph's or whose edges have features, and
        another space's size.
        """
        from search_spaces.auto_gnn.network import network_for

        own, graphs = LayerwiseSize.own(size, self.name), task.graphs(edge_features=False)
        check_legal(self, arch)
        layers = self.components(arch, _width(graphs, task, own))
        return network_for(graphs)(
            graphs,
            task.outputs,
            layers=layers,
            dropout=own.dropout,
            batchnorm=own.batchnorm,
            residual=own.residual,
            encodings=self.encodings.make(),
            degree=mean_degree(task),
            readout=self.readout,
        )

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one graph of the mean size, or of the whole one, whose nodes have no
        self-loops; pairs are as many as edges. Raises UsageError when the task does not say how large its graphs
        are."""
        own, (nodes, edges) = LayerwiseSize.own(size, self.name), task.graph_size()
        graphs = task.graphs(edge_features=False)
        more, params, macs = self.encodings.costs(nodes, edges)
        width = graphs.features + more
        layers = self.components(arch, _width(graphs, task, own))
        for number, parts in enumerate(layers, 1):
            last, hidden, every = number == len(layers), parts.hidden, parts.heads * parts.hidden
            out = hidden if last else every
            params += out
            if parts.operator is None or parts.combine == "mlp":
                params, macs = params + width * every, macs + nodes * width * every
            if parts.operator is not None:
                more, its_macs = operator_costs(parts.operator, width, every, nodes, edges)
                params, macs = params + more, macs + its_macs
            else:
                # Heads are told apart by their scores alone.
                apart = parts.heads if VECTORS[parts.attention] else 1
                more, its_macs = aggregator_costs(
                    parts.aggregate, every // apart, nodes * apart, (edges + nodes) * apart
                )
                params += VECTORS[parts.attention] * every + more
                macs += its_macs + VECTORS[parts.attention] * nodes * every
            if parts.attention in OF_EDGES:
                macs += (edges + nodes) * every
            if parts.attention == "gene-linear":
                params += hidden
            if parts.pooled:
                params += 2 * hidden * POOLED + hidden
                macs += nodes * parts.heads * 2 * hidden * POOLED
            if parts.combine == "mlp":
                params += (2 * hidden + 1) * COMBINED + (COMBINED + 1) * hidden
                macs += nodes * parts.heads * 3 * hidden * COMBINED
            if own.batchnorm and not last:
                params += 2 * out
            if own.residual:
                params, macs = params + (width + 1) * out, macs + nodes * width * out
            width = out
        if graphs.level == "graph":
            _, more, its_macs = readout_costs(self.readout, width, nodes)
            params, macs = params + more, macs + its_macs
        if graphs.level == "pair":
            more = 0 if task.outputs == 1 else width * task.outputs
            params, macs = params + more + (task.outputs if more else 0), macs + edges * (width + more)
        return {"params": params, "macs": macs}

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain: of each layer the map with its attention, then the other components."""
        labels = ["input"]
        for layer in range(self.layers):
            values: Any = {HIDDEN: "out", **self._values(arch, layer)}
            first = values[ATTENTION] if ATTENTION in values else values[OPERATOR]
            labels.append(f"{first} {values.get('heads', 1)}x{values[HIDDEN]}")
            told = (HIDDEN, OPERATOR, "heads", ATTENTION)
            labels += [str(value) for kind, value in values.items() if kind not in told]
        labels.append("output")
        return ArchGraph(tuple(labels), tuple((node, node + 1) for node in range(len(labels) - 1)))

    def to_text(self, arch: Architecture) -> str:
        """The components of each layer, layers apart by ` / `."""
        return " / ".join(
            " ".join(str(value) for value in self._values(arch, layer).values()) for layer in range(self.layers)
        )

    def from_text(self, text: str) -> Architecture:
        """Raises ValueError, naming what is wrong with the text."""
        layers = [words(layer) for layer in cut(text, "/")]
        if len(layers) != self.layers:
            raise ValueError(f"'{text}' has {len(layers)} layers, the space has {self.layers}; they are apart by ' / '")
        values: dict[str, Value] = {}
        for layer, said in enumerate(layers):
            kinds = [kind for kind in self._kinds(layer) if kind not in BY_ATTENTION or self._attends(layer, said)]
            if len(said) != len(kinds):
                raise ValueError(f"layer {layer} is '{' '.join(said)}'; write its {', '.join(kinds)}")
            for kind, word in zip(kinds, said, strict=True):
                known = {str(option): option for option in self.options[kind]}
                if word not in known:
                    raise ValueError(f"{kind} of layer {layer} is '{word}'; it is one of {', '.join(known)}")
                values[f"layer{layer}/{kind}"] = known[word]
        return Architecture(self.name, values)

    def _attends(self, layer: int, said: Sequence[str]) -> bool:
        """Whether no operator is named where one would be."""
        if not self.parts.operators:
            return True
        place = self._kinds(layer).index(OPERATOR)
        return len(said) <= place or said[place] not in self.parts.operators

    def _kinds(self, layer: int) -> tuple[str, ...]:
        """What is chosen of a layer."""
        return tuple(kind for kind in self.options if kind != HIDDEN or layer < self.layers - 1)

    def _values(self, arch: Architecture, layer: int) -> dict[str, Value]:
        """What is chosen of a layer, by component."""
        named = {kind: f"layer{layer}/{kind}" for kind in self._kinds(layer)}
        return {kind: arch.values[name] for kind, name in named.items() if name in arch.values}


def _width(graphs: Graphs, task: Task, size: LayerwiseSize) -> int:
    """Of the last layer."""
    return size.embedding if graphs.level == "pair" else task.outputs
