"""Graph networks whose every layer is chosen component by component, each component a kind of choice: the spaces of
Auto-GNN and of GraphNAS.

The last layer is as wide as the answer and takes the mean of its heads, so that it has no hidden size to choose; its
activation is chosen as those of all layers are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import GRAPH_KINDS, Graphs, Task
from search_spaces.auto_gnn.components import COMBINED, POOLED, Components

if TYPE_CHECKING:
    from torch import nn

HIDDEN = "hidden"
ORDERED = frozenset({HIDDEN, "heads"})
MOST = 16
VECTORS = {"const": 0, "gcn": 0, "gat": 2, "sym-gat": 2, "cos": 2, "linear": 1, "gene-linear": 2}
"""How many vectors each head of an attention function has, which every node is multiplied by."""
OF_EDGES = frozenset({"cos", "gene-linear"})
"""Attention functions that multiply at every edge."""


class LayerwiseSize(SizeConfig):
    """What is no choice."""

    dropout: float = Field(0.6, ge=0.0, lt=1.0, description="of features, of states, and of attention")
    batchnorm: bool = Field(False, description="batch normalisation in all layers but the last")
    residual: bool = Field(False, description="a linear map of a layer's input is added before its activation")
    embedding: int = Field(64, ge=1, description="width of the last layer where pairs of nodes are asked for")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {}}


class Layerwise(SearchSpace):
    """A space says its `family`, its `classes` (options by component), what of a layer has to be the `same` for another
    one to take over its weights, beside their shapes, and its `references`: by name a layer, and the last layer.

    Raises UsageError for numbers of layers that are not 2 to 16.
    """

    family: ClassVar[str]
    classes: ClassVar[Mapping[str, tuple[Value, ...]]]
    same: ClassVar[tuple[str, ...]]
    references: ClassVar[Mapping[str, tuple[str, str]]]

    tasks = GRAPH_KINDS
    Size = LayerwiseSize
    why_not_relaxable = "its choices set widths, so the candidates of one have no common shape"

    def __init__(self, layers: int = 2) -> None:
        if type(layers) is not int or not 2 <= layers <= MOST:
            raise UsageError(f"{self.family}: layers is {layers!r}; use 2 to {MOST}")
        self.layers = layers
        self.name = self.family if layers == 2 else f"{self.family}-{layers}"
        self.choices = tuple(
            Choice(f"layer{layer}/{kind}", self.classes[kind], kind, ordered=kind in ORDERED)
            for layer in range(layers)
            for kind in self._kinds(layer)
        )
        self.named: Mapping[str, Architecture] = MappingProxyType(
            {
                name: self.from_text(" / ".join([inner] * (layers - 1) + [last]))
                for name, (inner, last) in self.references.items()
            }
        )

    def of_layer(self, values: Mapping[str, Any]) -> Components:
        """What the values of a layer's components mean."""
        raise NotImplementedError

    def components(self, arch: Architecture, outputs: int) -> list[Components]:
        """Those of every layer, the last one `outputs` wide."""
        return [self.of_layer({HIDDEN: outputs, **self._values(arch, layer)}) for layer in range(self.layers)]

    def alike(self, values: Mapping[str, Any]) -> Hashable:
        """What has to be the same for weights to mean the same, beside their shapes."""
        return (self.family, *(values[kind] for kind in self.same))

    def layer_signatures(self, arch: Architecture) -> Mapping[str, Hashable]:
        """What every layer's weights mean (`search_spaces.auto_gnn.network.Layer.signature`); the first one's are for
        the features of the data, the last one's for the answers that are asked for."""
        found: dict[str, Hashable] = {}
        width: Hashable = "features"
        for layer in range(self.layers):
            values: Any = {HIDDEN: "outputs", **self._values(arch, layer)}
            hidden, heads = values[HIDDEN], values["heads"]
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
        return network_for(graphs)(graphs, task.outputs, layers, own.dropout, own.batchnorm, own.residual)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one graph of the mean size, or of the whole one, whose nodes have no
        self-loops; pairs are as many as edges. Raises UsageError when the task does not say how large its graphs
        are."""
        own, (nodes, edges) = LayerwiseSize.own(size, self.name), task.graph_size()
        graphs = task.graphs(edge_features=False)
        width, params, macs = graphs.features, 0, 0
        layers = self.components(arch, _width(graphs, task, own))
        for number, parts in enumerate(layers, 1):
            last, hidden, every = number == len(layers), parts.hidden, parts.heads * parts.hidden
            out = hidden if last else every
            params += width * every + VECTORS[parts.attention] * every + out
            macs += nodes * width * every + (edges + nodes) * every + VECTORS[parts.attention] * nodes * every
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
            macs += nodes * width
        if graphs.level == "pair":
            more = 0 if task.outputs == 1 else width * task.outputs
            params, macs = params + more + (task.outputs if more else 0), macs + edges * (width + more)
        return {"params": params, "macs": macs}

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain: of each layer the map with its attention, then the other components."""
        labels = ["input"]
        for layer in range(self.layers):
            values: Any = {HIDDEN: "out", **self._values(arch, layer)}
            labels.append(f"{values['attention']} {values['heads']}x{values[HIDDEN]}")
            labels += [str(values[kind]) for kind in self.classes if kind not in (HIDDEN, "heads", "attention")]
        labels.append("output")
        return ArchGraph(tuple(labels), tuple((node, node + 1) for node in range(len(labels) - 1)))

    def to_text(self, arch: Architecture) -> str:
        """The components of each layer, layers apart by ` / `."""
        return " / ".join(
            " ".join(str(value) for value in self._values(arch, layer).values()) for layer in range(self.layers)
        )

    def from_text(self, text: str) -> Architecture:
        """Raises ValueError, naming what is wrong with the text."""
        layers = [layer.split() for layer in text.split("/")]
        if len(layers) != self.layers:
            raise ValueError(f"'{text}' has {len(layers)} layers, the space has {self.layers}; they are apart by ' / '")
        values: dict[str, Value] = {}
        for layer, words in enumerate(layers):
            kinds = self._kinds(layer)
            if len(words) != len(kinds):
                raise ValueError(f"layer {layer} is '{' '.join(words)}'; write its {', '.join(kinds)}")
            for kind, word in zip(kinds, words, strict=True):
                known = {str(option): option for option in self.classes[kind]}
                if word not in known:
                    raise ValueError(f"{kind} of layer {layer} is '{word}'; it is one of {', '.join(known)}")
                values[f"layer{layer}/{kind}"] = known[word]
        return Architecture(self.name, values)

    def _kinds(self, layer: int) -> tuple[str, ...]:
        """What is chosen of a layer."""
        return tuple(kind for kind in self.classes if kind != HIDDEN or layer < self.layers - 1)

    def _values(self, arch: Architecture, layer: int) -> dict[str, Value]:
        """What is chosen of a layer, by component."""
        return {kind: arch.values[f"layer{layer}/{kind}"] for kind in self._kinds(layer)}


def _width(graphs: Graphs, task: Task, size: LayerwiseSize) -> int:
    """Of the last layer."""
    return size.embedding if graphs.level == "pair" else task.outputs
