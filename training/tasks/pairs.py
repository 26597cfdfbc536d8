"""What kinds of task on pairs of nodes of one graph share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import Task
from training.inputs.pairs import PairInputs
from training.tasks.graphs import OnGraphs

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from training.data.protocol import Source
    from training.inputs.samples import Proof, Samples

_GRAPH = {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.0}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_GRAPH, "epochs": 40, "schedule": "cosine"},
    "standard": {**_GRAPH, "epochs": 200, "schedule": "constant", "keep": "best"},
}


class OnPairs(OnGraphs):
    """Inputs are one graph, with edge_attr [e, k] where its edges have features, and pairs [2, p] int64 of its nodes;
    outputs are [p, outputs]."""

    axes: ClassVar[tuple[Mapping[int, str], ...]] = ({0: "nodes"}, {1: "edges"}, {1: "pairs"})
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    samples: ClassVar[str] = "pairs"
    alphas: ClassVar[str] = "validation pairs"
    Inputs = PairInputs

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """A graph of the task's size, and as many pairs as it has edges."""
        import torch

        x, edge_index = super().sample_inputs(task, batch, generator)
        found = [x, edge_index]
        if task.edge_features is not None:
            found.append(torch.rand(edge_index.shape[1], task.edge_features, generator=generator))
        return (*found, torch.randint(len(x), edge_index.shape, generator=generator))

    def variants(self, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """The graph, half of it (loops and repeated edges occur), one pair, and no edges."""
        x, edge_index, *values, pairs = example
        nodes = max(1, len(x) // 2)
        half = (x[:nodes], edge_index[:, ::2] % nodes, *(value[::2] for value in values), pairs[:, ::3] % nodes)
        return {
            "the example graph": example,
            f"a graph of {nodes} nodes": half,
            "one pair": (x, edge_index, *values, pairs[:, :1]),
            "a graph without edges": (x, edge_index[:, :0], *(value[:0] for value in values), pairs),
        }

    def read(self, inputs: Any, argument: str) -> Samples:
        """`graph:FILE` with the pairs that are asked about."""
        from training.infer import pairs

        return pairs.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.pairs(source)

    def normalised(self, network: nn.Module, inputs: Any) -> nn.Module:
        from training.export.normalise import NormalisedAttributedPairs, NormalisedPairs

        if inputs.normalise != "rows":
            return network
        wrapper = NormalisedPairs if inputs.edge_features is None else NormalisedAttributedPairs
        return wrapper(network).eval()

    def script(self, inputs: Any, file: str, raw: bool) -> str | None:
        from training.export import script

        return script.pairs(inputs, file, raw)

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        features, names, edges, normalisation = super().card(inputs, where)
        attr = f"[edges, {inputs.edge_features}], float32, in the order of the training data"
        return [
            features,
            names,
            edges,
            *([("edge features", attr)] if inputs.edge_features else []),
            ("pairs", "[2, pairs], int64: the nodes that are asked about"),
            normalisation,
        ]
