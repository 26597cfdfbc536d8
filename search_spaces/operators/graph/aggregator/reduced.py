"""Sum, mean and maximum."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.utils import scatter


class Reduced(nn.Module):
    """The sum, the mean or the largest of the values, per feature; 0 where there are none."""

    def __init__(self, width: int, by: str) -> None:
        super().__init__()
        self.out_features, self.by = width, by

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        return scatter(values, index, 0, count, self.by)

    def macs(self, nodes: int, edges: int) -> int:
        return edges * self.out_features

    def signature(self) -> Hashable:
        return self.by, self.out_features
