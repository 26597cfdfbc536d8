"""Auto-GNN's space: graph networks whose every layer has six components (Zhou, Song, Huang and Hu, "Auto-GNN: Neural
Architecture Search of Graph Neural Networks", arXiv 1909.03184, 2019, section 3.1).

The last layer is as wide as the answer and takes the mean of its heads, so that it has no hidden size to choose; its
activation is chosen as those of all layers are. The list of activations, one more than the paper's seven, and the
attention functions are those of GraphNAS (Gao et al., IJCAI 2020). Means and maxima are those of the weighted messages:
GraphNAS has two linear maps before them, of which the paper says nothing.
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
from search_spaces.auto_gnn.components import COMBINED, Components

if TYPE_CHECKING:
    from torch import nn

CLASSES: Mapping[str, tuple[Value, ...]] = {
    "hidden": (4, 8, 16, 32, 64, 128, 256),
    "attention": ("const", "gcn", "gat", "sym-gat", "cos", "linear", "gene-linear"),
    "heads": (1, 2, 4, 6, 8, 16),
    "aggregate": ("sum", "mean", "max"),
    "combine": ("identity", "mlp"),
    "activation": ("sigmoid", "tanh", "relu", "linear", "softplus", "leaky_relu", "relu6", "elu"),
}
"""The options of each component of a layer."""
ORDERED = frozenset({"hidden", "heads"})
MOST = 16
VECTORS = {"const": 0, "gcn": 0, "gat": 2, "sym-gat": 2, "cos": 2, "linear": 1, "gene-linear": 2}
"""How many vectors each head of an attention function has, which every node is multiplied by."""
OF_EDGES = frozenset({"cos", "gene-linear"})
"""Attention functions that multiply at every edge."""


class AutoGnnSize(SizeConfig):
    """What is no choice."""

    dropout: float = Field(0.6, ge=0.0, lt=1.0, description="of features, of states, and of attention")
    batchnorm: bool = Field(False, description="batch normalisation in all layers but the last")
    residual: bool = Field(False, description="a linear map of a layer's input is added before its activation")
    embedding: int = Field(64, ge=1, description="width of the last layer where pairs of nodes are asked for")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {}}


class AutoGnn(SearchSpace):
    """Per layer hidden size, attention function, heads, aggregation, combination and activation, each a kind of choice.

    28,449,792 networks of two layers, the paper's for citation graphs; for PPI it has three, `auto-gnn(layers=3)`. Text
    form: the components of each layer, `8 gat 8 sum identity elu / gat 1 sum identity linear`.

    Raises UsageError for numbers of layers that are not 2 to 16.
    """

    name = "auto-gnn"
    version = 1
    tasks = GRAPH_KINDS
    Size = AutoGnnSize
    why_not_relaxable = "its choices set widths, so the candidates of one have no common shape"

    def __init__(self, layers: int = 2) -> None:
        if type(layers) is not int or not 2 <= layers <= MOST:
            raise UsageError(f"auto-gnn: layers is {layers!r}; use 2 to {MOST}")
        self.layers = layers
        if layers != 2:
            self.name = f"auto-gnn-{layers}"
        self.choices = tuple(
            Choice(f"layer{layer}/{kind}", CLASSES[kind], kind, ordered=kind in ORDERED)
            for layer in range(layers)
            for kind in self._kinds(layer)
        )
        self.named: Mapping[str, Architecture] = MappingProxyType(
            {
                name: self.from_text(" / ".join([inner] * (layers - 1) + [last]))
                for name, (inner, last) in _REFERENCES.items()
            }
        )

    def components(self, arch: Architecture, outputs: int) -> list[Components]:
        """Those of every layer, the last one `outputs` wide."""
        values: Any = arch.values
        found = []
        for layer in range(self.layers):
            hidden = values.get(f"layer{layer}/hidden", outputs)
            found.append(Components(hidden, *(values[f"layer{layer}/{kind}"] for kind in list(CLASSES)[1:])))
        return found

    def layer_signatures(self, arch: Architecture) -> Mapping[str, Hashable]:
        """What every layer's weights mean (`search_spaces.auto_gnn.network.Layer.signature`); the first one's are for
        the features of the data, the last one's for the answers that are asked for."""
        found: dict[str, Hashable] = {}
        width: Hashable = "features"
        for layer in range(self.layers):
            names = [f"layer{layer}/{kind}" for kind in ("heads", "attention", "combine", "activation")]
            hidden = arch.values.get(f"layer{layer}/hidden", "outputs")
            found[f"layer{layer}"] = (width, hidden, *(arch.values[name] for name in names))
            width = (hidden, arch.values[f"layer{layer}/heads"])
            if isinstance(hidden, int):
                width = hidden * int(arch.values[f"layer{layer}/heads"])
        return found

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, counts | pairs])` as the task has it, to an answer per node, graph or pair.

        Raises UsageError for an illegal architecture, a task that is no graph's or whose edges have features, and
        another space's size.
        """
        from search_spaces.auto_gnn.network import network_for

        own, graphs = AutoGnnSize.own(size, self.name), task.graphs(edge_features=False)
        check_legal(self, arch)
        layers = self.components(arch, _width(graphs, task, own))
        return network_for(graphs)(graphs, task.outputs, layers, own.dropout, own.batchnorm, own.residual)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one graph of the mean size, or of the whole one, whose nodes have no
        self-loops; pairs are as many as edges. Raises UsageError when the task does not say how large its graphs
        are."""
        own, (nodes, edges) = AutoGnnSize.own(size, self.name), task.graph_size()
        graphs = task.graphs(edge_features=False)
        width, params, macs = graphs.features, 0, 0
        for layer in range(self.layers):
            values: Any = {kind: arch.values.get(f"layer{layer}/{kind}") for kind in CLASSES}
            last = layer == self.layers - 1
            hidden = _width(graphs, task, own) if last else values["hidden"]
            every = values["heads"] * hidden
            out = hidden if last else every
            params += width * every + VECTORS[values["attention"]] * every + out
            macs += nodes * width * every + (edges + nodes) * every + VECTORS[values["attention"]] * nodes * every
            if values["attention"] in OF_EDGES:
                macs += (edges + nodes) * every
            if values["attention"] == "gene-linear":
                params += hidden
            if values["combine"] == "mlp":
                params += (2 * hidden + 1) * COMBINED + (COMBINED + 1) * hidden
                macs += nodes * values["heads"] * 3 * hidden * COMBINED
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
        """A chain: of each layer the map with its attention, the aggregation, the combination and the activation."""
        labels = ["input"]
        for layer in range(self.layers):
            values = {kind: arch.values.get(f"layer{layer}/{kind}", "out") for kind in CLASSES}
            labels.append(f"{values['attention']} {values['heads']}x{values['hidden']}")
            labels += [str(values[kind]) for kind in ("aggregate", "combine", "activation")]
        labels.append("output")
        return ArchGraph(tuple(labels), tuple((node, node + 1) for node in range(len(labels) - 1)))

    def to_text(self, arch: Architecture) -> str:
        """`8 gat 8 sum identity elu / gat 1 sum identity linear`."""
        return " / ".join(
            " ".join(str(arch.values[f"layer{layer}/{kind}"]) for kind in self._kinds(layer))
            for layer in range(self.layers)
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
                known = {str(option): option for option in CLASSES[kind]}
                if word not in known:
                    raise ValueError(f"{kind} of layer {layer} is '{word}'; it is one of {', '.join(known)}")
                values[f"layer{layer}/{kind}"] = known[word]
        return Architecture(self.name, values)

    def _kinds(self, layer: int) -> tuple[str, ...]:
        """What is chosen of a layer."""
        return tuple(kind for kind in CLASSES if kind != "hidden" or layer < self.layers - 1)


def _width(graphs: Graphs, task: Task, size: AutoGnnSize) -> int:
    """Of the last layer."""
    return size.embedding if graphs.level == "pair" else task.outputs


_REFERENCES = {
    "gcn": ("64 gcn 1 sum identity relu", "gcn 1 sum identity linear"),
    "gat": ("8 gat 8 sum identity elu", "gat 1 sum identity linear"),
}
"""All layers but the last, and that one: GCN (Kipf and Welling 2017), with 64 hidden features instead of 16, as many as
the other has, and GAT (Velickovic et al. 2018) as it was for Cora."""
