"""Many graphs whose nodes have any number of several labels, such as proteins and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import MULTILABEL_NODE_CLASSIFICATION, Task, graph_task
from training.inputs.many_graphs import MultilabelInputs
from training.metrics import PartMetric
from training.tasks.graphs import ManyGraphs

if TYPE_CHECKING:
    from torch import Tensor

    from training.data.protocol import Source
    from training.data.split import Split

_NODES = {"optimizer": "adam", "lr": 0.005, "weight_decay": 0.0, "loss": "binary_cross_entropy_with_logits"}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_NODES, "batch_size": 2, "epochs": 20, "schedule": "cosine"},
    # Velickovic et al., "Graph attention networks", ICLR 2018, section 3.3: batches of two graphs, Adam at 0.005.
    "standard": {**_NODES, "batch_size": 2, "epochs": 100, "schedule": "constant", "keep": "best"},
}


def micro_f1(outputs: Tensor, targets: Tensor) -> float:
    """The harmonic mean of precision and recall of all labels of all nodes together; 0 where nothing is found."""
    found, right = outputs > 0, targets > 0.5
    hits = float((found & right).sum())
    return 2 * hits / max(float(found.sum() + right.sum()), 1.0)


class MultilabelNodeClassification(ManyGraphs):
    """Outputs are a logit for every label [nodes, labels], targets 0 or 1 for each, float32."""

    name = MULTILABEL_NODE_CLASSIFICATION
    example: ClassVar[Task] = graph_task(
        50, 121, 2372, 68508, kind=MULTILABEL_NODE_CLASSIFICATION, counts=True, metric="micro_f1"
    )  # as of PPI
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"binary_cross_entropy_with_logits": ()}
    metrics: ClassVar[tuple[PartMetric, ...]] = (PartMetric("micro_f1", micro_f1),)
    samples: ClassVar[str] = "nodes"
    answers: ClassVar[str] = "labels"
    Inputs = MultilabelInputs

    def examples(self) -> tuple[Task, ...]:
        """With features of edges, and without."""
        return (
            graph_task(5, 3, 9, 20, kind=self.name, counts=True, metric="micro_f1"),
            graph_task(4, 5, 7, 12, kind=self.name, counts=True, edge_features=3, metric="micro_f1"),
        )

    def agreement(self, outputs: Tensor, others: Tensor) -> float:
        return float(((outputs > 0) == (others > 0)).double().mean())

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("random-graphs?target=roles&graphs=100", split)


KIND = MultilabelNodeClassification()
