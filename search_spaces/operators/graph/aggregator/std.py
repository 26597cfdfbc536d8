"""Standard deviation."""

from __future__ import annotations

import math
from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.utils import scatter

LEAST = 1e-5  # a variance up to this is none: the root has no gradient at zero


class Deviation(nn.Module):
    """The standard deviation of the values, per feature, over their number (Corso et al. 2020, section 3); 0 for one
    value or none. From the distances to the mean, which keeps what `E[x^2] - E[x]^2` loses in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        mean = scatter(values, index, 0, count, "mean")
        variance = scatter((values - mean[index]).square(), index, 0, count, "mean")
        deviation = variance.clamp(min=LEAST).sqrt()
        return deviation.masked_fill(deviation <= math.sqrt(LEAST), 0.0)

    def macs(self, nodes: int, edges: int) -> int:
        return 2 * edges * self.out_features

    def signature(self) -> Hashable:
        return "std", self.out_features
