"""Many graphs with one class each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import GRAPH_CLASSIFICATION, Task, graph_task
from training.tasks.classification import Classification
from training.tasks.graphs import ManyGraphs

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.data.split import Split

_GRAPHS = {"optimizer": "adam", "lr": 0.005, "batch_size": 32}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_GRAPHS, "epochs": 20, "schedule": "cosine"},
    "standard": {**_GRAPHS, "epochs": 100, "schedule": "cosine", "keep": "best"},
}


class GraphClassification(ManyGraphs, Classification):
    """Outputs are logits [graphs, classes], targets class numbers [graphs]."""

    name = GRAPH_CLASSIFICATION
    example: ClassVar[Task] = graph_task(7, 2, 18, 40, kind=GRAPH_CLASSIFICATION, level="graph")  # as of MUTAG
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    def examples(self) -> tuple[Task, ...]:
        """With features of edges, and without."""
        return (
            graph_task(5, 3, 9, 20, kind=self.name, level="graph"),
            graph_task(4, 2, 7, 12, kind=self.name, level="graph", edge_features=3),
        )

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("random-graphs?target=degrees&graphs=200", split)


KIND = GraphClassification()
