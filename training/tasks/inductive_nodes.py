"""Many graphs whose nodes have a class each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import INDUCTIVE_NODE_CLASSIFICATION, Task, graph_task
from training.metrics import PartMetric
from training.tasks.classification import Classification, correct
from training.tasks.graphs import ManyGraphs

if TYPE_CHECKING:
    from torch import Tensor

    from training.data.protocol import Source
    from training.data.split import Split

_NODES = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "batch_size": 16, "class_weights": "complement"}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_NODES, "lr": 5e-3, "epochs": 10, "schedule": "cosine"},
    "standard": {**_NODES, "epochs": 100, "schedule": "cosine", "keep": "best"},
}


def mean_recall(outputs: Tensor, targets: Tensor) -> float:
    """The mean over the classes that occur of the share of their nodes that is right (Dwivedi et al., "Benchmarking
    graph neural networks", JMLR 2023, section 4.2), of all nodes of a part together."""
    import torch

    classes = outputs.shape[1]
    right = torch.bincount(targets[correct(outputs, targets)], minlength=classes)
    every = torch.bincount(targets, minlength=classes)
    return float((right[every > 0] / every[every > 0]).mean())


class InductiveNodeClassification(ManyGraphs, Classification):
    """Outputs are logits [nodes, classes], targets class numbers [nodes]; a part of the data are graphs."""

    name = INDUCTIVE_NODE_CLASSIFICATION
    example: ClassVar[Task] = graph_task(
        7, 6, 117, 4303, kind=INDUCTIVE_NODE_CLASSIFICATION, counts=True, metric="mean_recall"
    )  # as of CLUSTER
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("mean_recall", mean_recall),
        PartMetric("accuracy", correct, per_sample=True),
    )
    samples: ClassVar[str] = "nodes"

    def examples(self) -> tuple[Task, ...]:
        """With features of edges, and without."""
        return (
            graph_task(5, 3, 9, 20, kind=self.name, counts=True, metric="mean_recall"),
            graph_task(4, 2, 7, 12, kind=self.name, counts=True, edge_features=3, metric="mean_recall"),
        )

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("sbm-cluster?graphs=40", split)


KIND = InductiveNodeClassification()
