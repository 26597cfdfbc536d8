"""Generalised means."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.utils import scatter

LEAST = 1e-5


class PowerMean(nn.Module):
    """The generalised mean `mean(max(x, 1e-5)^p)^(1/p)` of the values, per feature (Cai et al. 2022, section 3.2); 1e-5
    where there are none."""

    def __init__(self, width: int, power: int = 2) -> None:
        super().__init__()
        self.out_features, self.power = width, power

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        mean = scatter(values.clamp(min=LEAST).pow(self.power), index, 0, count, "mean")
        return mean.clamp(min=LEAST**self.power).pow(1.0 / self.power)  # the root has no gradient at zero

    def macs(self, nodes: int, edges: int) -> int:
        return edges * self.out_features

    def signature(self) -> Hashable:
        return "power mean", self.power, self.out_features
