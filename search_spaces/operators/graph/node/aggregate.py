"""What GraphSAGE and the k-GNN share."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch, Norm


class Aggregate(nn.Module):
    """`AGG_j (W x_j) + V x_i + b` over the in-neighbours j of node i: `(nodes, width), (2, edges)` to
    `(nodes, hidden)`."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int, aggregation: Norm) -> None:
        super().__init__()
        self.aggregation: Norm = aggregation
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        near = GraphBatch.of(edges, x).propagate(self.neighbours(x), self.aggregation)
        return near + self.itself(x) + self.bias

    def macs(self, nodes: int, edges: int) -> int:
        return 2 * nodes * self.itself.weight.numel() + edges * self.itself.out_features

    def signature(self) -> Hashable:
        return type(self).__name__, self.itself.in_features, self.itself.out_features
