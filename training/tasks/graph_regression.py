"""Many graphs with numbers, which are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import GRAPH_REGRESSION, Task, graph_task
from training.metrics import PartMetric
from training.tasks.graphs import ManyGraphs
from training.tasks.tabular_regression import absolute, r2, rmse

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.data.split import Split

_GRAPHS = {"optimizer": "adam", "lr": 0.005, "batch_size": 32, "loss": "l1_loss"}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_GRAPHS, "epochs": 20, "schedule": "cosine"},
    "standard": {**_GRAPHS, "epochs": 100, "schedule": "cosine", "keep": "best"},
}


class GraphRegression(ManyGraphs):
    """Outputs and targets are numbers [graphs, k], in training standardised; metrics are in the targets' own unit."""

    name = GRAPH_REGRESSION
    example: ClassVar[Task] = graph_task(
        28, 1, 23, 50, kind=GRAPH_REGRESSION, level="graph", metric="mae"
    )  # as of ZINC
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"l1_loss": (), "mse_loss": (), "smooth_l1_loss": ()}
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("mae", absolute, "min", per_sample=True),
        PartMetric("rmse", rmse, "min"),
        PartMetric("r2", r2),
    )
    answers: ClassVar[str] = "numbers"

    def examples(self) -> tuple[Task, ...]:
        """With features of edges, and without."""
        return (
            graph_task(5, 1, 9, 20, kind=self.name, level="graph", metric="mae"),
            graph_task(4, 3, 7, 12, kind=self.name, level="graph", edge_features=3, metric="mae"),
        )

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("random-graphs?target=triangles&graphs=200", split)


KIND = GraphRegression()
