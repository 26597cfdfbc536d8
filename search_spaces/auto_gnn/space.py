"""Auto-GNN's space: graph networks whose every layer has six components (Zhou, Song, Huang and Hu, "Auto-GNN: Neural
Architecture Search of Graph Neural Networks", arXiv 1909.03184, 2019, section 3.1).

The list of activations, one more than the paper's seven, and the attention functions are those of GraphNAS (Gao et al.,
IJCAI 2020). Means and maxima are those of the weighted messages: GraphNAS has two linear maps before them, of which the
paper says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nas_core.choice import Value
from search_spaces.auto_gnn.components import Components
from search_spaces.auto_gnn.layerwise import Layerwise, LayerwiseSize

CLASSES: Mapping[str, tuple[Value, ...]] = {
    "hidden": (4, 8, 16, 32, 64, 128, 256),
    "attention": ("const", "gcn", "gat", "sym-gat", "cos", "linear", "gene-linear"),
    "heads": (1, 2, 4, 6, 8, 16),
    "aggregate": ("sum", "mean", "max"),
    "combine": ("identity", "mlp"),
    "activation": ("sigmoid", "tanh", "relu", "linear", "softplus", "leaky_relu", "relu6", "elu"),
}
"""The options of each component of a layer."""

AutoGnnSize = LayerwiseSize


class AutoGnn(Layerwise):
    """Per layer hidden size, attention function, heads, aggregation, combination and activation, each a kind of choice.

    28,449,792 networks of two layers, the paper's for citation graphs; for PPI it has three, `auto-gnn(layers=3)`. Text
    form: the components of each layer, `8 gat 8 sum identity elu / gat 1 sum identity linear`.

    Raises UsageError for numbers of layers that are not 2 to 16, and for operators that cannot take part
    (`Layerwise`).
    """

    name = "auto-gnn"
    version = 1
    family = "auto-gnn"
    classes = CLASSES
    # Section 3.4. An aggregation has no weights, so it may differ.
    same = ("attention", "combine", "activation")
    # GCN (Kipf and Welling 2017), with 64 hidden features instead of 16, as many as the other has, and GAT (Velickovic
    # et al. 2018) as it was for Cora.
    references: ClassVar[Mapping[str, tuple[str, str]]] = {
        "gcn": ("64 gcn 1 sum identity relu", "gcn 1 sum identity linear"),
        "gat": ("8 gat 8 sum identity elu", "gat 1 sum identity linear"),
    }

    def of_layer(self, values: Mapping[str, Any]) -> Components:
        more = {"aggregate": self.aggregator(values["aggregate"]), "alike": self.alike(values)}
        return Components(**{**values, **more}, pooled=False)
