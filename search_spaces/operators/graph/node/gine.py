"""GINE: a graph isomorphism network with features of edges."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.given import graph_and_edges


class IsomorphismWithEdges(MessagePassing):
    """GINE (Hu et al. 2020, section 5.1): `MLP((1 + eps) x_i + sum_j ReLU(x_j + U e_ij))`, `eps` learned, an MLP of two
    linear maps with a ReLU between them. Without features of edges the sum is of `ReLU(x_j)`."""

    takes_graph = True
    takes_edges = True

    def __init__(self, width: int, hidden: int, edge_dim: int | None = None) -> None:
        super().__init__(aggr="sum")
        self.eps = nn.Parameter(torch.zeros(1))
        self.edges = None if edge_dim is None else nn.Linear(edge_dim, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden))

    def forward(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> Tensor:
        graph, given = graph_and_edges(x, edges, e)
        more = None if self.edges is None else self.edges(given)
        near = self.propagate(graph.edge_index, x=x, more=more)
        answer: Tensor = self.mlp((1 + self.eps) * x + near)
        return answer

    def message(self, x_j: Tensor, more: Tensor | None) -> Tensor:
        return torch.relu(x_j if more is None else x_j + more)

    def macs(self, nodes: int, edges: int) -> int:
        first, last = self.mlp[0].weight.numel(), self.mlp[2].weight.numel()
        given = 0 if self.edges is None else edges * self.edges.weight.numel()
        return nodes * (first + last) + edges * self.mlp[0].in_features + given

    def signature(self) -> Hashable:
        given = None if self.edges is None else self.edges.in_features
        return "gine", self.mlp[0].in_features, self.mlp[0].out_features, given
