"""Networks of Auto-GNN (Zhou et al. 2019, sections 2 and 3.1) and of GraphNAS (Gao et al. 2020, section 3.2): layers of
several components, one after the other.

They are called with the tensors of the task (`nas_core.task.Graphs`): a class for each sequence of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import softmax

from nas_core.task import Graphs
from search_spaces.auto_gnn.attention import LEARNT
from search_spaces.auto_gnn.components import COMBINED, POOLED, Components
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import HEAD
from search_spaces.operators.graph.counted import plain
from search_spaces.operators.graph.made import joined, of_width, step, takes_sparse
from search_spaces.operators.operator import Operator

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "linear": nn.Identity,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
}


class FreshNorm(nn.BatchNorm1d):
    """Batch normalisation that begins anew in every network."""

    def plain(self) -> nn.Module:
        return nn.BatchNorm1d(self.num_features)

    def signature(self) -> None:
        return None


class FreshSkip(nn.Linear):
    """The linear map of a skip connection, which begins anew in every network."""

    def plain(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features)

    def signature(self) -> None:
        return None


class Layer(nn.Module):
    """`act([BN](combine(W x_i, AGG_j e_ij W x_j)) [+ V x_i])` over the neighbours j and the node itself, `[n, width]`
    to `[n, heads * hidden]`, heads side by side, or in the `last` layer to their mean `[n, hidden]`. Where there is an
    operator, it answers what is combined instead.

    e_ij is 1 (const), `1 / sqrt(d_i d_j)` (gcn), or a softmax of scores over j (`attention.LEARNT`), after dropout.
    Every node has one self-loop, whether the data have it or not. "identity" takes what was aggregated; "mlp" is
    two linear maps with a rectifier between them, of the node and the aggregate side by side, the same for all heads.
    Pooled messages `e_ij W x_j` go through two linear maps with nothing between them, as the program of GraphNAS has
    them, the same for all heads. A message is a multiple of a state, so that states are mapped; what is added to a
    message is one vector, as a bias of the first map would do nothing that one of the second does not.
    """

    def __init__(
        self,
        width: int,
        parts: Components,
        last: bool,
        dropout: float,
        batchnorm: bool,
        residual: bool,
        degree: float,
    ) -> None:
        super().__init__()
        self.width, self.parts, self.last = width, parts, last
        every, out = parts.heads * parts.hidden, parts.hidden if last else parts.heads * parts.hidden
        self.step = None if parts.operator is None else step(parts.operator, width, every, None, degree)
        self.map: Any = None
        if self.step is None or parts.combine == "mlp":
            self.map = nn.Linear(width, every, bias=False)
            nn.init.xavier_uniform_(self.map.weight)
        learnt = parts.attention in LEARNT
        self.scores = LEARNT[parts.attention](parts.heads, parts.hidden) if learnt else None
        self.drop = Dropout(dropout if learnt else 0.0)
        self.reduced = parts.aggregate.label if plain(parts.aggregate) else None
        self.aggregate: Any = None
        if self.step is None:
            self.aggregate = of_width(parts.aggregate, parts.hidden if learnt else every)
        self.pool: nn.Module | None = None
        if parts.pooled:
            self.pool = nn.Sequential(
                nn.Linear(parts.hidden, POOLED, bias=False), nn.Linear(POOLED, parts.hidden, bias=False)
            )
            for linear in self.pool:
                nn.init.xavier_uniform_(linear.weight)
            self.added = nn.Parameter(torch.zeros(parts.hidden))
        self.combine: nn.Module | None = None
        if parts.combine == "mlp":
            self.combine = nn.Sequential(
                nn.Linear(2 * parts.hidden, COMBINED), nn.ReLU(), nn.Linear(COMBINED, parts.hidden)
            )
        self.bias = nn.Parameter(torch.zeros(out))
        self.norm = FreshNorm(out) if batchnorm and not last else None
        self.skip = FreshSkip(width, out) if residual else None
        self.activation = ACTIVATIONS[parts.activation]()

    def forward(self, x: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        # A compression may remove features of every head; where all of them are answers, heads.
        answers = self.last and self.combine is None and self.pool is None
        apart = (-1, self.parts.hidden) if answers else (self.parts.heads, -1)
        mapped = None if self.map is None else self.map(x).unflatten(1, apart)
        if self.step is None:
            near = self.neighbours(mapped, GraphBatch.of(graph, x))
        else:
            near = self.step(x, None, graph).unflatten(1, apart)
        if self.combine is not None:
            near = self.combine(torch.cat([mapped, near], 2))
        near = (near.mean(1) if self.last else near.flatten(1)) + self.bias
        if self.norm is not None:
            near = self.norm(near)
        if self.skip is not None:
            near = near + self.skip(x)
        answer: Tensor = self.activation(near)
        return answer

    def neighbours(self, states: Tensor, graph: GraphBatch) -> Tensor:
        """What is aggregated of the states, both `[n, heads, hidden]`."""
        if self.pool is None:
            return self.aggregated(states, states, graph)
        near = self.aggregated(states, self.pool(states), graph)
        # A vector that is added to every message; aggregations beside the paper's have it added to what they answer.
        if self.reduced == "sum":
            return near + graph.looped_degree.to(near.dtype).view(-1, 1, 1) * self.added
        return near + self.added

    def aggregated(self, states: Tensor, sent: Tensor, graph: GraphBatch) -> Tensor:
        """Of what is `sent`, weighted by what the states are to each other, all `[n, heads, hidden]`."""
        attention, aggregate = self.parts.attention, self.reduced
        if attention == "gcn" and aggregate == "sum" and not graph.by_edges:
            return graph.propagate(sent.flatten(1), "gcn").view_as(sent)
        # Without scores there is nothing that tells heads apart: all are one.
        heads = self.parts.heads if self.scores is not None else 1
        flat = sent.flatten(0, 1) if self.scores is not None else sent.flatten(1)
        count = graph.nodes * heads
        places = None if graph.by_edges else graph.attention(heads, states.dtype, looped=True)
        if places is not None:
            source, target = places.source, places.target
        else:
            edges = graph.looped
            if heads > 1:
                edges = (edges.unsqueeze(2) * heads + torch.arange(heads, device=edges.device)).flatten(1)
            source, target = edges[0], edges[1]
        weights: Tensor | None = None
        if self.scores is not None:
            scores = self.scores(states, source, target)
            found = softmax(scores, target, num_nodes=count) if places is None else places.softmax(scores)
            weights = self.drop(found)
        elif attention == "gcn":
            scale = graph.looped_degree.to(states.dtype).rsqrt()
            weights = scale[source] * scale[target]
        if places is None or aggregate not in ("sum", "mean"):
            given = graph.message(flat, source, weights)
            if heads > 1 and getattr(self.aggregate, "ordered", None) is not None:
                order = target.argsort(stable=True)  # edges are sorted by their nodes, but not by the heads of these
                given, target = given[order], target[order]
            near = self.aggregate(given, target, count)
        else:
            near = places.places @ flat if weights is None else places.places.weighted(weights, flat)
            if aggregate == "mean":
                near = near / degrees(target, count).to(near.dtype).unsqueeze(1)
        return near.view_as(sent)

    def signature(self) -> Hashable:
        """Layers share weights where every tensor has the same shape, and what the space says is the same."""
        return self.width, self.parts.hidden, self.parts.heads, self.parts.alike


def degrees(target: Tensor, count: int) -> Tensor:
    """How many edges reach each of `count` nodes; at least the self-loop."""
    return torch.zeros(count, dtype=torch.long, device=target.device).scatter_add(0, target, torch.ones_like(target))


class NodeNetwork(nn.Module):
    """`(x, edge_index)` to an answer per node `[n, outputs]`, that of the last layer; only answers for graphs are made
    by the `readout`."""

    def __init__(
        self,
        graphs: Graphs,
        outputs: int,
        *,
        layers: Sequence[Components],
        dropout: float,
        batchnorm: bool,
        residual: bool,
        encodings: Sequence[Any],
        degree: float,
        readout: Operator,
    ) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(encodings)
        self.drop_features, self.drop = FeatureDropout(dropout), Dropout(dropout)
        first = layers[0].operator
        self.drop_features.dense = first is not None and not takes_sparse(first)
        self.layers = nn.ModuleList()
        width = graphs.features + sum(one.out_features for one in encodings)
        for number, parts in enumerate(layers, 1):
            self.layers.append(Layer(width, parts, number == len(layers), dropout, batchnorm, residual, degree))
            width = parts.heads * parts.hidden

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.states(x, GraphBatch.of(edge_index, x))

    def states(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """What the last layer answers for each node."""
        state = self.drop_features(joined(x, self.encodings, graph), graph)
        for number, layer in enumerate(self.layers):
            state = layer(self.drop(state) if number else state, graph)
        found: Tensor = state
        return found


class NodesNetwork(NodeNetwork):
    """The same for nodes of several graphs."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        return self.states(x, GraphBatch.of(edge_index, x, counts=counts))


class GraphNetwork(NodeNetwork):
    """The same for graphs: what the readout makes of the nodes of each, `[graphs, outputs]`. Raises UsageError for one
    that answers another number of features than it is given."""

    def __init__(self, graphs: Graphs, outputs: int, *, readout: Operator, **given: Any) -> None:
        super().__init__(graphs, outputs, readout=readout, **given)
        made = of_width(readout, outputs)
        # Source needs no graph for what is an aggregator.
        self.pool: Any = getattr(made, "aggregator", None)
        self.readout = made if self.pool is None else None

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, counts=counts)
        state = self.states(x, graph)
        if self.readout is not None:
            answer: Tensor = self.readout(state, graph)
        else:
            answer = self.pool(state, graph.batch, graph.graphs)
        return answer


class PairNetwork(NodeNetwork):
    """The same for pairs of nodes: the product of both, `[p, outputs]`."""

    def __init__(self, graphs: Graphs, outputs: int, *, layers: Sequence[Components], **given: Any) -> None:
        super().__init__(graphs, outputs, layers=layers, **given)
        self.pairs = HEAD.operator("dot").make(layers[-1].hidden, outputs)

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x)
        answer: Tensor = self.pairs(self.states(x, graph), pairs, graph)
        return answer


def network_for(graphs: Graphs) -> type[NodeNetwork]:
    """The class whose networks answer for what is asked."""
    if graphs.level == "node":
        return NodesNetwork if graphs.counts else NodeNetwork
    return GraphNetwork if graphs.level == "graph" else PairNetwork
