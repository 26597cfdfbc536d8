"""One graph, of whose pairs of nodes it is predicted whether an edge joins them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import LINK_PREDICTION, Task, graph_task
from training.link_metrics import Hits, auc, mrr
from training.metrics import PartMetric
from training.tasks.pairs import OnPairs

if TYPE_CHECKING:
    from torch import Tensor

    from training.data.protocol import Source
    from training.data.split import Split


class LinkPrediction(OnPairs):
    """Outputs are logits [p, 1] of an edge, targets [p, 1] 1 where there is one and 0 elsewhere."""

    name = LINK_PREDICTION
    # As of Cora, without the edges that are held out.
    example: ClassVar[Task] = graph_task(1433, 1, 2708, 7600, kind=LINK_PREDICTION, level="pair", metric="auc")
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"binary_cross_entropy_with_logits": ()}
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**fields, "loss": "binary_cross_entropy_with_logits"} for name, fields in OnPairs.recipes.items()
    }
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("auc", auc),
        PartMetric("mrr", mrr),
        PartMetric("hits_at_10", Hits(10)),
    )
    further: ClassVar[Mapping[str, str]] = {
        "average_precision": "training.link_metrics:average_precision",
        "hits": "training.link_metrics:Hits",
    }
    answers: ClassVar[str] = "logits"

    def examples(self) -> tuple[Task, ...]:
        """Without features of edges, and with some."""
        return (
            graph_task(20, 1, 30, 60, kind=self.name, level="pair", metric="auc"),
            graph_task(5, 1, 12, 24, kind=self.name, level="pair", edge_features=3, metric="auc"),
        )

    def agreement(self, outputs: Tensor, others: Tensor) -> float:
        """The share of pairs that both answer alike."""
        return float(((outputs > 0) == (others > 0)).double().mean())

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("karate?task=link-prediction", split)

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        output = "a logit of an edge for each pair; its sigmoid is a probability"
        return [*super().card(inputs, where), ("output", output)]


KIND = LinkPrediction()
