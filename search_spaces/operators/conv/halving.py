"""The identity of NASNet, which halves in reduction cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FactorisedReduction(nn.Module):
    """Half of the filters see the pixels of even, half those of odd rows and columns, by 1x1 convolutions of stride 2;
    then BN. The input is rectified by the caller. `(n, inputs, h, w)` to `(n, outputs, ceil(h / 2), ceil(w / 2))`
    with at least two outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def identity(width: int, stride: int) -> nn.Module:
    """What it gets; with stride 2 a factorised reduction, which has weights."""
    return FactorisedReduction(width, width) if stride == 2 else nn.Identity()
