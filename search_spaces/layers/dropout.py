"""Dropout, faster on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Dropout):
    """`nn.Dropout`, faster on the CPU."""

    def plain(self) -> nn.Module:
        return nn.Dropout(self.p)

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p if self.training else 0.0)


def drop(x: Tensor, probability: float) -> Tensor:
    """Dropout. On the CPU by comparing uniform numbers, which is several times faster than torch's Bernoulli draws."""
    if probability == 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, probability)
    keep = torch.rand(x.shape) >= probability
    return x * keep.to(x.dtype).mul_(1 / (1 - probability))
