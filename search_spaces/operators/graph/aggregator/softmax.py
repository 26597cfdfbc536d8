"""Softmax aggregation."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax


class Softmax(nn.Module):
    """The sum of the values, each feature weighted by its softmax over the values, with an inverse temperature `t` that
    is learned (Li et al. 2020, "DeeperGCN", eq. 4): between the mean (0) and the maximum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width
        self.t = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        weights = softmax(values * self.t, index, num_nodes=count)
        return scatter(values * weights, index, 0, count, "sum")

    def macs(self, nodes: int, edges: int) -> int:
        """Two sums, and the largest of each feature."""
        return 3 * edges * self.out_features

    def signature(self) -> Hashable:
        return "softmax", self.out_features
