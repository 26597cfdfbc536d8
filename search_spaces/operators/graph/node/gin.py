"""GIN: graph isomorphism network."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class Isomorphism(nn.Module):
    """GIN with one linear map and epsilon 0 (Xu et al. 2019, eq. 4.1): `W (x_i + sum_j x_j) + b`."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        projected = self.linear(x)
        return projected + GraphBatch.of(edges, x).propagate(projected, "sum") + self.bias

    def macs(self, nodes: int, edges: int) -> int:
        return nodes * self.linear.weight.numel() + edges * self.linear.out_features

    def signature(self) -> Hashable:
        return "gin", self.linear.in_features, self.linear.out_features
