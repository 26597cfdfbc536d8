"""One graph, some of whose nodes have a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.errors import UsageError
from nas_core.task import NODE_CLASSIFICATION, Task, graph_task
from training.inputs.graphs import GraphInputs
from training.tasks.classification import Classification

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

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


class NodeClassification(Classification):
    """Inputs are features [nodes, f] float32 and directed edges [2, e] int64 of the whole graph, the one batch."""

    name = NODE_CLASSIFICATION
    example: ClassVar[Task] = graph_task(1433, 7, nodes=2708, edges=10556)  # as of Cora
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    samples: ClassVar[str] = "nodes"
    axes: ClassVar[tuple[Mapping[int, str], ...]] = ({0: "nodes"}, {1: "edges"})
    apart = False
    alphas: ClassVar[str] = "validation nodes"
    Inputs = GraphInputs

    def examples(self) -> tuple[Task, ...]:
        return graph_task(20, 7, nodes=30, edges=60), graph_task(5, 2, nodes=12, edges=24)

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """Nodes [n, f] and edges [2, e] of a graph of the task's size."""
        import torch

        if task.nodes is None or task.edges is None:
            raise UsageError("costs of a graph network need the graph's size: set nodes and edges of the task")
        nodes = torch.rand(task.nodes, *task.input_shape, generator=generator)
        return nodes, torch.randint(task.nodes, (2, task.edges), generator=generator)

    def variants(self, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """The graph, and half of its edges wrapped onto half of its nodes: loops and repeated ones occur."""
        x, edge_index = example
        nodes = max(1, len(x) // 2)
        other = (x[:nodes], edge_index[:, ::2] % nodes)
        return {"the example graph": example, f"a graph of {nodes} nodes": other}

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("karate", split)

    def describe(self, task: Task) -> str:
        return f"a graph of {task.nodes:,} nodes with {' x '.join(map(str, task.input_shape))} features"

    def read(self, inputs: GraphInputs, argument: str) -> Samples:
        """`graph:FILE`."""
        from training.infer import graphs

        return graphs.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.graph(source)

    def normalised(self, network: nn.Module, inputs: GraphInputs) -> nn.Module:
        from training.export.normalise import NormalisedRows

        return NormalisedRows(network).eval() if inputs.normalise == "rows" else network

    def script(self, inputs: GraphInputs, file: str, raw: bool) -> str | None:
        from training.export import script

        return script.graphs(inputs, file, raw)

    def given(self, inputs: GraphInputs) -> tuple[str, str]:
        return "graph:graph.npz", "numpy and onnxruntime"

    def card(self, inputs: GraphInputs, where: str) -> list[tuple[str, str]]:
        return [
            ("features", f"[nodes, {inputs.features}], float32, in the order of the training data"),
            ("feature names", ", ".join(inputs.feature_names)),
            ("edges", "[2, edges], int64; an undirected graph holds both directions"),
            ("normalisation", "none" if inputs.normalise == "none" else f"{inputs.normalise}, {where}"),
        ]

    def python(self, inputs: GraphInputs) -> Mapping[str, str]:
        from training.export.python import inputs as source

        return source.graph(inputs)

    def facts(self, inputs: GraphInputs) -> dict[str, Any]:
        return {"FEATURES": inputs.feature_names} if inputs.feature_names else {}


KIND = NodeClassification()
