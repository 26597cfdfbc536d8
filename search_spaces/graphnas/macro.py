"""GraphNAS's space of whole networks: every layer has five components (Gao, Yang, Zhang, Zhou and Hu, "Graph Neural
Architecture Search", IJCAI 2020, section 3.2, and its program).

Layers are those of Auto-GNN (`search_spaces.auto_gnn.network`) without a combination; messages go through two linear
maps before their mean, their maximum, and the sum that is called "mlp", as in the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nas_core.choice import Value
from search_spaces.auto_gnn.components import Components
from search_spaces.auto_gnn.layerwise import Layerwise
from search_spaces.auto_gnn.space import CLASSES


class GraphNas(Layerwise):
    """Per layer hidden size, attention function, heads, aggregation and activation.

    12,644,352 networks of two layers. Text form: the components of each layer,
    `128 gat 4 sum linear / linear 8 sum elu`, the network that was found on CiteSeer.

    Raises UsageError for numbers of layers that are not 2 to 16, and for operators that cannot take part
    (`Layerwise`).
    """

    name = "graphnas"
    version = 1
    family = "graphnas"
    classes: ClassVar[Mapping[str, tuple[Value, ...]]] = {
        **{kind: CLASSES[kind] for kind in ("hidden", "attention", "heads")},
        "aggregate": ("sum", "mean", "max", "mlp"),
        "activation": CLASSES["activation"],
    }
    # The program's key of shared weights.
    same = ("attention", "aggregate")
    aggregations = ("mlp",)
    references: ClassVar[Mapping[str, tuple[str, str]]] = {
        "gcn": ("64 gcn 1 sum relu", "gcn 1 sum linear"),
        "gat": ("8 gat 8 sum elu", "gat 1 sum linear"),
    }

    def of_layer(self, values: Mapping[str, Any]) -> Components:
        more = {"combine": "identity", "pooled": values["aggregate"] != "sum", "alike": self.alike(values)}
        return Components(**{**values, **more, "aggregate": self.aggregator(values["aggregate"])})
