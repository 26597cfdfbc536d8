"""What kinds of task on graphs share: nodes with features and directed edges, one graph or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.batch import some_graphs
from nas_core.task import COUNTS, EDGE_ATTR, EDGE_INDEX, PAIRS, Task, X
from training.inputs.graphs import GraphInputs
from training.inputs.many_graphs import ManyGraphInputs
from training.tasks.kind import Kind

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from training.data.protocol import Source
    from training.inputs.samples import Proof, Samples

_FREE: Mapping[str, Mapping[int, str]] = {
    X: {0: "nodes"},
    EDGE_INDEX: {1: "edges"},
    EDGE_ATTR: {0: "edges"},
    COUNTS: {0: "graphs"},
    PAIRS: {1: "pairs"},
}


class OnGraphs(Kind):
    """Inputs are those that `nas_core.task.Graphs` names; by default one graph, which is one batch as a whole."""

    pipeline = "graph-ml"
    axes: ClassVar[tuple[Mapping[int, str], ...]] = (_FREE[X], _FREE[EDGE_INDEX])
    samples: ClassVar[str] = "nodes"
    apart = False
    Inputs = GraphInputs

    def axes_of(self, task: Task) -> tuple[Mapping[int, str], ...]:
        return tuple(_FREE[each.name] for each in task.inputs)

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """Nodes [n, f] and edges [2, e] of a graph of the task's size."""
        import torch

        nodes, edges = task.graph_size()
        features = torch.rand(nodes, *task.input_shape, generator=generator)
        return features, torch.randint(nodes, (2, edges), generator=generator)

    def variants(self, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """The graph, and half of its edges wrapped onto half of its nodes: loops and repeated ones occur."""
        x, edge_index = example
        nodes = max(1, len(x) // 2)
        other = (x[:nodes], edge_index[:, ::2] % nodes)
        return {"the example graph": example, f"a graph of {nodes} nodes": other}

    def describe(self, task: Task) -> str:
        return f"a graph of {task.nodes:,} nodes with {' x '.join(map(str, task.input_shape))} features"

    def read(self, inputs: Any, argument: str) -> Samples:
        """`graph:FILE`."""
        from training.infer import graphs

        return graphs.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.graph(source)

    def normalised(self, network: nn.Module, inputs: Any) -> nn.Module:
        from training.export.normalise import NormalisedRows

        return NormalisedRows(network).eval() if inputs.normalise == "rows" else network

    def script(self, inputs: Any, file: str, raw: bool) -> str | None:
        from training.export import script

        return script.graphs(inputs, file, raw)

    def given(self, inputs: Any) -> tuple[str, str]:
        return "graph:graph.npz", "numpy and onnxruntime"

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        return [
            ("features", f"[nodes, {inputs.features}], float32, in the order of the training data"),
            ("feature names", ", ".join(inputs.feature_names)),
            ("edges", "[2, edges], int64; an undirected graph holds both directions"),
            ("normalisation", "none" if inputs.normalise == "none" else f"{inputs.normalise}, {where}"),
        ]

    def python(self, inputs: Any) -> Mapping[str, str]:
        from training.export.python import inputs as source

        return source.graph(inputs)

    def facts(self, inputs: Any) -> dict[str, Any]:
        return {"FEATURES": inputs.feature_names} if inputs.feature_names else {}


class ManyGraphs(OnGraphs):
    """Many graphs: a sample of a batch is one of them, `counts` [graphs] follow the other inputs."""

    axes: ClassVar[tuple[Mapping[int, str], ...]] = (_FREE[X], _FREE[EDGE_INDEX], _FREE[COUNTS])
    samples: ClassVar[str] = "graphs"
    apart = True
    alphas: ClassVar[str] = "half of the training part"
    Inputs = ManyGraphInputs

    def first(self, inputs: Sequence[Any], count: int) -> tuple[Any, ...]:
        """The first `count` graphs of a batch."""
        return some_graphs(inputs, 0, count)

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """So many graphs of the task's mean size, one node more or less for some."""
        import torch

        nodes, edges = task.graph_size()
        counts = torch.tensor([max(1, nodes + (0, 1, -1)[graph % 3]) for graph in range(batch)], dtype=torch.int64)
        total = int(counts.sum())
        starts = (counts.cumsum(0) - counts).repeat_interleave(edges)
        ends = torch.rand(2, edges * batch, generator=generator) * counts.repeat_interleave(edges)
        found = [torch.rand(total, *task.input_shape, generator=generator), ends.long() + starts]
        if task.edge_features is not None:
            found.append(torch.rand(edges * batch, task.edge_features, generator=generator))
        return (*found, counts)

    def variants(self, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """The graphs, one, several, one without edges, and a single node."""
        one = some_graphs(example, 0, 1)
        x, edge_index, *values, counts = one
        bare = (x, edge_index[:, :0], *(value[:0] for value in values), counts)
        node = (x[:1], edge_index[:, :0], *(value[:0] for value in values), counts.clamp(max=1))
        return {
            "the example graphs": example,
            "one graph": one,
            "several graphs": together(one, bare, example),
            "a graph without edges": bare,
            "a graph of one node": node,
        }

    def describe(self, task: Task) -> str:
        return f"a graph, on average of {task.nodes} nodes with {task.input_shape[0]} features and {task.edges} edges"

    def read(self, inputs: Any, argument: str) -> Samples:
        """`graph:FILE`, of many graphs or of one."""
        from training.infer import graphs

        return graphs.read_many(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.many_graphs(source)

    def normalised(self, network: nn.Module, inputs: Any) -> nn.Module:
        from training.export.normalise import NormalisedAttributed, NormalisedGraphs

        if inputs.normalise != "rows":
            return network
        wrapper = NormalisedGraphs if inputs.edge_features is None else NormalisedAttributed
        return wrapper(network).eval()

    def script(self, inputs: Any, file: str, raw: bool) -> str | None:
        from training.export import script

        return script.many_graphs(inputs, file, raw)

    def given(self, inputs: Any) -> tuple[str, str]:
        return "graph:graphs.npz", "numpy and onnxruntime"

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        parts = [
            (inputs.own, f"{inputs.own} of the data"),
            (len(inputs.tags), f"one per node_tag {', '.join(map(str, inputs.tags))}"),
            (inputs.degrees, f"one per in-degree from 0, the last of {inputs.degrees - 1} and more"),
            (inputs.constant, "a constant 1"),
        ]
        features, names, edges, normalisation = super().card(inputs, where)
        attr = f"[edges, {inputs.edge_features}], float32, in the order of the training data"
        unit = f"{inputs.target_mean:.6g} + {inputs.target_deviation:.6g} x answer of the network"
        return [
            features,
            ("columns", "; ".join(words for count, words in parts if count)),
            names,
            edges,
            *([("edge features", attr)] if inputs.edge_features else []),
            ("graphs", "counts [graphs], int64: the nodes of each; those of one follow those of another"),
            normalisation,
            *([] if inputs.classes else [("output", unit)]),
        ]


def together(*batches: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The graphs of several inputs (x, edge_index, ..., counts) as one."""
    import torch

    nodes = 0
    edges = []
    for x, edge_index, *_ in batches:
        edges.append(edge_index + nodes)
        nodes += len(x)
    columns = list(zip(*batches, strict=True))
    return (torch.cat(columns[0]), torch.cat(edges, 1), *(torch.cat(column) for column in columns[2:]))
