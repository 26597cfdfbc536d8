"""One graph, some of whose nodes have numbers, which are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import NODE_REGRESSION, Task, graph_task
from training.inputs.node_numbers import NodeNumberInputs
from training.metrics import PartMetric
from training.tasks.graphs import OnGraphs
from training.tasks.tabular_regression import absolute, r2, rmse

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.data.split import Split

_GRAPH = {"optimizer": "adam", "lr": 0.005, "weight_decay": 5e-4, "loss": "mse_loss"}


class NodeRegression(OnGraphs):
    """Outputs and targets are numbers [nodes, k], in training standardised; metrics are in the targets' own unit."""

    name = NODE_REGRESSION
    example: ClassVar[Task] = graph_task(16, 1, 2000, 8000, kind=NODE_REGRESSION, metric="rmse")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {**_GRAPH, "epochs": 40, "schedule": "cosine"},
        "standard": {**_GRAPH, "epochs": 200, "schedule": "constant", "keep": "best"},
    }
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"mse_loss": (), "l1_loss": (), "smooth_l1_loss": ()}
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("rmse", rmse, "min"),
        PartMetric("mae", absolute, "min", per_sample=True),
        PartMetric("r2", r2),
    )
    answers: ClassVar[str] = "numbers"
    sampled: ClassVar[bool] = True
    alphas: ClassVar[str] = "validation nodes"
    Inputs = NodeNumberInputs

    def examples(self) -> tuple[Task, ...]:
        return (
            graph_task(20, 1, 30, 60, kind=self.name, metric="rmse"),
            graph_task(5, 3, 12, 24, kind=self.name, metric="rmse"),
        )

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("karate?task=node-regression", split)

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        unit = f"{inputs.target_mean:.6g} + {inputs.target_deviation:.6g} x answer of the network"
        return [*super().card(inputs, where), ("output", unit)]


KIND = NodeRegression()
