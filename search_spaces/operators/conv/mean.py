"""Average on an edge of a NAS-Bench-201 cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.relax import Style
from search_spaces.layers.features import Features


class Mean(nn.Module):
    """Average of 3x3, at stride 1; padding does not count."""

    def __init__(self, channels: int, stride: int, style: Style) -> None:
        super().__init__()
        if stride != 1:
            raise ValueError(f"stride {stride}: the average keeps the resolution")
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def plain(self) -> nn.Module:
        return self.pool

    def forward(self, node: Features) -> Tensor | None:
        return node.once("pool", self.pool)

    def weighted(self, weight: Tensor, node: Features) -> Tensor | None:
        """`weight * self(node)`; on a CPU a depthwise convolution is several times faster than torch's pooling."""
        if not node.value.is_cpu:
            pooled = self(node)
            return None if pooled is None else weight * pooled
        box = node.once("box", box_sum)
        return None if box is None else (weight / 9) * box


def box_sum(x: Tensor) -> Tensor:
    """Nine times the average of 3x3 where padding does not count; exact in every precision but for the sum."""
    channels = x.size(1)
    counts = functional.avg_pool2d(torch.ones_like(x[:1]), 3, 1, 1, divisor_override=1)
    return functional.conv2d(x, x.new_ones(channels, 1, 3, 3), padding=1, groups=channels) * (9 / counts)
