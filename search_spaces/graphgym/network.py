"""Networks of GraphGym (You et al. 2020, section 4): linear layers, message passing with skips, linear layers.

They are called with the tensors of the task (`nas_core.task.Graphs`): a class for each sequence of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.row_norm import RowNorm
from search_spaces.operators.graph.made import joined, step
from search_spaces.operators.operator import Operator

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "prelu": nn.PReLU, "swish": nn.SiLU}


def after(width: int, batchnorm: bool, dropout: float) -> list[nn.Module]:
    """What follows a layer before its activation: batch normalisation and dropout, where there are any."""
    return [*([RowNorm(width)] if batchnorm else []), *([nn.Dropout(dropout)] if dropout else [])]


def step_of(
    operator: Operator,
    aggregator: str | None,
    bias: bool,
    width: int,
    hidden: int,
    edge_dim: int | None,
    degree: float,
) -> nn.Module:
    """The operator as a layer, called with `(x, e, graph)`; the general one has an aggregator, and a bias or none."""
    options = {} if aggregator is None else {"aggregator": aggregator, "bias": bias}
    return step(operator, width, hidden, edge_dim, degree, **options)


class MessageLayer(nn.Module):
    """A node operator, then batch normalisation and dropout; around it, by `connectivity`, nothing ("stack"), a sum
    ("skipsum"), or the layer's input before its output ("skipconcat"); then the activation."""

    def __init__(self, step: nn.Module, wrapper: nn.Sequential, activation: nn.Module, connectivity: str) -> None:
        super().__init__()
        self.step, self.wrapper, self.activation = step, wrapper, activation
        self.connectivity = connectivity

    def forward(self, x: Tensor, e: Tensor | None, graph: Tensor | GraphBatch) -> Tensor:
        new = self.wrapper(self.step(x, e, graph))
        if self.connectivity == "skipsum":
            new = x + new
        if self.connectivity == "skipconcat":
            new = torch.cat([x, new], 1)
        answer: Tensor = self.activation(new)
        return answer


class GraphGymNetwork(nn.Module):
    """`(x, edge_index)` to an answer per node. Messages pass on the graph that a rewiring, at most one, makes of the
    one that is given. With `l2norm` states have length 1 after message passing."""

    def __init__(
        self,
        encodings: Sequence[nn.Module],
        drop_features: nn.Module,
        before: nn.Sequential,
        layers: Sequence[MessageLayer],
        aggregator: nn.Module | None,
        readout: nn.Module | None,
        head: nn.Sequential,
        pairs: nn.Module | None,
        l2norm: bool,
        rewirings: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(encodings)
        self.rewirings = nn.ModuleList(rewirings)
        self.drop_features = drop_features
        self.before = before
        self.layers = nn.ModuleList(layers)
        self.aggregator = aggregator  # of nodes: what most readouts are; source needs no graph for it
        self.readout = readout
        self.head = head
        self.pairs = pairs
        self.l2norm = l2norm

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        answer: Tensor = self.head(self.states(x, GraphBatch.of(edge_index, x)))
        return answer

    def states(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """What message passing makes of the nodes `[n, width]`."""
        x = joined(x, self.encodings, graph)
        x = self.before(self.drop_features(x, graph))
        places: Tensor | None = None
        for rewiring in self.rewirings:
            x, graph, places = rewiring(x, graph)
        for layer in self.layers:
            x = layer(x, graph.edge_attr, graph)
        if places is not None:
            x = x[places]
        return functional.normalize(x, dim=-1) if self.l2norm else x


class WithEdges(GraphGymNetwork):
    """The same of edges with features."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.head(self.states(x, GraphBatch.of(edge_index, x, edge_attr)))
        return answer


class OfMany(GraphGymNetwork):
    """The same of many graphs, which are answered for where there is a readout, or else their nodes."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, counts=counts)
        return self.answered(self.states(x, graph), graph)

    def answered(self, x: Tensor, graph: GraphBatch) -> Tensor:
        if self.aggregator is not None:
            x = self.aggregator(x, graph.batch, graph.graphs)
        elif self.readout is not None:
            x = self.readout(x, graph)
        answer: Tensor = self.head(x)
        return answer


class OfManyWithEdges(OfMany):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, counts: Tensor
    ) -> Tensor:
        graph = GraphBatch.of(edge_index, x, edge_attr, counts)
        return self.answered(self.states(x, graph), graph)


class OfPairs(GraphGymNetwork):
    """The same for pairs of nodes."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x)
        return self.joined(self.states(x, graph), pairs, graph)

    def joined(self, x: Tensor, pairs: Tensor, graph: GraphBatch) -> Tensor:
        answer: Tensor = self.pairs(self.head(x), pairs, graph)  # type: ignore[misc]
        return answer


class OfPairsWithEdges(OfPairs):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, pairs: Tensor
    ) -> Tensor:
        graph = GraphBatch.of(edge_index, x, edge_attr)
        return self.joined(self.states(x, graph), pairs, graph)
