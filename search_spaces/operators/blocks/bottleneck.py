"""The residual bottleneck of RegNet (Radosavovic et al., CVPR 2020, figure 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search_spaces.layers.blocks import ConvNorm, ConvNormReLU, SqueezeExcite


class Bottleneck(nn.Module):
    """Residual bottleneck: 1x1, 3x3 in groups and with the stride, 1x1, and the shortcut around them.

    The X block of Radosavovic et al. (CVPR 2020, figure 4): 1x1 to `inner`, 3x3, 1x1 to `outputs`; with `squeezed` > 0
    the Y block, whose gate follows the 3x3. The shortcut is projected where the shape changes. `(n, inputs, h, w)` to
    `(n, outputs, ceil(h / stride), ceil(w / stride))`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, inner: int, groups: int, squeezed: int = 0) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride)
        self.expand = ConvNormReLU(inputs, inner, 1)
        self.grouped = ConvNormReLU(inner, inner, 3, stride, groups)
        self.gate = SqueezeExcite(inner, squeezed) if squeezed else nn.Identity()
        self.project = ConvNorm(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.project(self.gate(self.grouped(self.expand(x)))))


def bottleneck(inputs: int, outputs: int, stride: int, ratio: int, group_width: int, squeeze: float) -> Bottleneck:
    """With an inner width of `outputs / ratio` in groups of `group_width` channels, or the widest below it that divide
    them; the hidden layer of its gate has `squeeze` times the inputs (Y block), 0: no gate (X block)."""
    inner = max(1, outputs // ratio)
    squeezed = max(1, round(squeeze * inputs)) if squeeze else 0
    return Bottleneck(inputs, outputs, stride, inner, inner // math.gcd(inner, group_width), squeezed)
