"""One graph, some of whose nodes have a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import NODE_CLASSIFICATION, Task, graph_task
from training.tasks.classification import Classification
from training.tasks.graphs import OnGraphs

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.data.split import Split

_GRAPH = {"optimizer": "adam", "lr": 0.005, "schedule": "cosine"}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_GRAPH, "epochs": 40, "weight_decay": 5e-4},
    # Kipf and Welling's decay. Adam trains on normalised rows as well, where SGD hardly moves (Cora in benchmarks.md).
    "standard": {**_GRAPH, "epochs": 200, "schedule": "constant", "weight_decay": 5e-4, "keep": "best"},
    # The benchmark's optimiser, rate and decay, for features as they are: it normalises no rows.
    "nasbench_graph": {
        "epochs": 200,
        "optimizer": "sgd",
        "lr": 0.1,
        "schedule": "constant",
        "weight_decay": 5e-4,
        "keep": "best",
    },
    # NAS-Bench-Graph on Cora: SGD, lr 0.1, weight decay 5e-4, 400 epochs; momentum and cosine are GraphGym's.
    "paper": {"epochs": 400, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
}


class NodeClassification(OnGraphs, Classification):
    """Inputs are features [nodes, f] float32 and directed edges [2, e] int64 of the whole graph, the one batch."""

    name = NODE_CLASSIFICATION
    example: ClassVar[Task] = graph_task(1433, 7, nodes=2708, edges=10556)  # as of Cora
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    sampled: ClassVar[bool] = True
    alphas: ClassVar[str] = "validation nodes"

    def examples(self) -> tuple[Task, ...]:
        return graph_task(20, 7, nodes=30, edges=60), graph_task(5, 2, nodes=12, edges=24)

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("karate", split)


KIND = NodeClassification()
