"""The networks of GNAS: filters, aggregators, layers (Cai et al., CVPR 2021, section 3).

Nothing is learnt of a sum, so it has no linear map before it, as the paper's program has without using it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.relax import Picker, Style
from nas_core.task import Graphs
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.features import total
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.states import Nothing, Same
from search_spaces.operators.graph import AGGREGATOR
from search_spaces.operators.graph.made import joined, of_width, step
from search_spaces.operators.graph.readout.aggregated import Aggregated as ReadByAggregator
from search_spaces.operators.operator import Operator

SLOPES = {Style.STANDALONE: 0.01, Style.SUPERNET: 0.1}


class Dense(nn.Module):
    """A gate per channel: `sigmoid(W [x || layer] + b) * x` for `x [n, d]` and the layer's input `[n, d]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return torch.sigmoid(self.gate(torch.cat([x, layer], 1))) * x


class Sparse(nn.Module):
    """A gate per node: `sigmoid(a . relu(W [x || layer] + b)) * x`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, width)
        self.gate = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return torch.sigmoid(self.gate(functional.relu(self.hidden(torch.cat([x, layer], 1))))) * x


class Sum(nn.Module):
    """The sum over the neighbours from which edges come; no self-loops, no degrees."""

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return GraphBatch.of(graph, x).propagate(x, "sum")


class Mean(nn.Module):
    """The mean of `relu(A x + b)` over the neighbours; 0 without any."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.Linear(width, width)

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return GraphBatch.of(graph, x).propagate(functional.relu(self.pool(x)), "mean")


class Aggregated(nn.Module):
    """`relu(A x + b)` of the neighbours by an aggregator; of the paper's the largest, 0 without any."""

    def __init__(self, aggregator: nn.Module, width: int) -> None:
        super().__init__()
        self.pool = nn.Linear(width, width)
        self.aggregator = aggregator

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        edges = GraphBatch.of(graph, x)
        source, target = edges.edge_index
        sent = edges.message(functional.relu(self.pool(x)), source, None)
        answer: Tensor = self.aggregator(sent, target, edges.nodes)
        return answer


class Stepped(nn.Module):
    """A node operator of the catalogue, called with `(x, e, graph)`."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.step(x, None, graph)
        return answer


class Wrapped(nn.Module):
    """An operation, then a linear map, batch normalisation and a rectifier."""

    def __init__(self, operation: nn.Module, width: int) -> None:
        super().__init__()
        self.operation = operation
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor, layer: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return functional.relu(self.norm(self.linear(self.operation(x, layer, graph))))


Make = Callable[[int], nn.Module]
"""What makes an operation of a width."""


def aggregated(aggregator: Operator) -> Make:
    """An aggregator of the catalogue, or of one's own, as an operation."""
    return lambda width: Wrapped(Aggregated(of_width(aggregator, width), width), width)


def stepped(operator: Operator, degree: float) -> Make:
    """A node operator as one; `degree` is the mean of the data."""
    return lambda width: Wrapped(Stepped(step(operator, width, width, None, degree)), width)


MADE: Mapping[str, Make] = {
    "none": lambda width: Nothing(),
    "identity": lambda width: Same(),
    "sparse": lambda width: Wrapped(Sparse(width), width),
    "dense": lambda width: Wrapped(Dense(width), width),
    "mean": lambda width: Wrapped(Mean(width), width),
    "sum": lambda width: Wrapped(Sum(), width),
    "max": aggregated(AGGREGATOR.operator("max")),
}


class Layer(nn.Module):
    """A cell: `x + dropout(leaky(BN(W [v_1 || ... || v_3n])))` of all its vertices, each the sum of what its edges
    bring (one in a built network). `edges`: per vertex the groups of what it may read, by its number;
    0 is `x`."""

    def __init__(
        self,
        picker: Picker,
        edges: Mapping[int, Mapping[int, str]],
        operations: Mapping[int, Mapping[str, Make]],
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.slope = SLOPES[picker.style]
        self.reads: dict[int, list[int]] = {number: [] for number in edges}  # per vertex what it reads
        self.operations = nn.ModuleDict()
        for number, sources in edges.items():
            for source, group in sources.items():
                made = picker.module(group, {name: partial(make, width) for name, make in operations[number].items()})
                if made is not None:
                    self.reads[number].append(source)
                    self.operations[f"edge{source}to{number}"] = made
        self.fuse, self.norm = nn.Linear(len(edges) * width, width), nn.BatchNorm1d(width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        states = {0: x}
        for number, sources in self.reads.items():
            state = total(self.operations[f"edge{source}to{number}"](states[source], x, graph) for source in sources)
            states[number] = torch.zeros_like(x) if state is None else state
        fused = self.norm(self.fuse(torch.cat([states[number] for number in self.reads], 1)))
        answer: Tensor = x + self.drop(functional.leaky_relu(fused, self.slope))
        return answer


class Head(nn.Module):
    """Four linear maps with rectifiers between them."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.hidden:
            x = functional.relu(linear(x))
        answer: Tensor = self.last(x)
        return answer


class NodeNetwork(nn.Module):
    """A linear embedding, the layers, and a head for every node: `x [n, features], edge_index [2, m]` to
    `[n, outputs]`.

    The embedding has no bias: of features that are one-hot it is that of a table. `encodings` of the graph join the
    features: the map of both is the sum of a map of each. `operations`: per vertex of a cell what makes those that it
    may have, by name.
    """

    def __init__(
        self,
        picker: Picker,
        edges: Sequence[Mapping[int, Mapping[int, str]]],
        operations: Mapping[int, Mapping[str, Make]],
        encodings: Sequence[Any],
        readouts: Sequence[Operator],
        graphs: Graphs,
        outputs: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(encodings)
        features = graphs.features + sum(one.out_features for one in encodings)
        self.embed = nn.Linear(features, width, bias=False)
        self.layers = nn.ModuleList(Layer(picker, cell, operations, width, dropout) for cell in edges)
        self.head = Head(self.wide(width, readouts), outputs)

    def wide(self, width: int, readouts: Sequence[Operator]) -> int:
        """How wide what is answered of is, of states of this width."""
        return width

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.answer(self.states(x, GraphBatch.of(edge_index, x)))

    def states(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """Of every node what the last layer answers `[n, width]`."""
        state = self.embed(graph.light(joined(x, self.encodings, graph)))
        for layer in self.layers:
            state = layer(state, graph)
        return state

    def answer(self, state: Tensor) -> Tensor:
        found: Tensor = self.head(state)
        return found


class NodesNetwork(NodeNetwork):
    """The same for nodes of several graphs: `x, edge_index, counts [graphs]` to `[n, outputs]`."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        return self.answer(self.states(x, GraphBatch.of(edge_index, x, counts=counts)))


class GraphNetwork(NodeNetwork):
    """The same for graphs, of what the readouts make of their nodes, side by side, aggregators first:
    `x, edge_index, counts [graphs]` to `[graphs, outputs]`."""

    def wide(self, width: int, readouts: Sequence[Operator]) -> int:
        made = [readout.make(width) for readout in readouts]
        # Source needs no graph for what is an aggregator.
        pools: list[Any] = [one.aggregator for one in made if isinstance(one, ReadByAggregator)]
        others: list[Any] = [one for one in made if not isinstance(one, ReadByAggregator)]
        self.pools, self.readouts = nn.ModuleList(pools), nn.ModuleList(others)
        return sum(getattr(one, "out_features", width) for one in (*pools, *others))

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, counts=counts)
        state = self.states(x, graph)
        read = [pool(state, graph.batch, graph.graphs) for pool in self.pools]
        read += [readout(state, graph) for readout in self.readouts]
        return self.answer(torch.cat(read, 1))


class PairNetwork(NodeNetwork):
    """The same for pairs, of both nodes side by side: `x, edge_index, pairs [2, p]` to `[p, outputs]`."""

    def wide(self, width: int, readouts: Sequence[Operator]) -> int:
        return 2 * width

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        state = self.states(x, GraphBatch.of(edge_index, x))
        return self.answer(torch.cat([state[pairs[0]], state[pairs[1]]], 1))


def network_for(graphs: Graphs) -> type[NodeNetwork]:
    """The class whose networks answer for what is asked."""
    if graphs.level == "node":
        return NodesNetwork if graphs.counts else NodeNetwork
    return GraphNetwork if graphs.level == "graph" else PairNetwork
