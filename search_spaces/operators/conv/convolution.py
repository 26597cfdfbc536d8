"""Convolution on an edge of a NAS-Bench-201 cell."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.relax import Style
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import scaled_norm


class ConvBN(nn.Sequential):
    """Convolution, batch normalisation; the input is rectified by the caller. `[b, i, h, w]` to
    `[b, o, ceil(h / stride), ceil(w / stride)]`.

    In the style of supernets the normalisation has no affine part, and the convolution a bias instead.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, style: Style = Style.STANDALONE
    ) -> None:
        affine = style == Style.STANDALONE
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not affine),
            nn.BatchNorm2d(outputs, affine=affine),
        )


class Convolution(ConvBN):
    """ReLU, convolution, batch normalisation: `[b, c, h, w]` to `[b, c, ceil(h / stride), ceil(w / stride)]`."""

    def __init__(self, channels: int, stride: int, style: Style, kernel: int) -> None:
        super().__init__(channels, channels, kernel, stride, style)

    def forward(self, node: Features) -> Tensor:
        return self[1](self.convolved(node))

    def weighted(self, weight: Tensor, node: Features) -> Tensor:
        """`weight * self(node)`, where the normalisation scales by the weight: no pass over the map of its own."""
        return scaled_norm(self[1], self.convolved(node), weight)

    def convolved(self, node: Features) -> Tensor:
        if node.relu is not None:
            return self[0](node.relu)
        # A convolution of zero is its bias, so only BN has work.
        zero = node.value[:, :, :: self[0].stride[0], :: self[0].stride[1]]
        return zero if self[0].bias is None else zero + self[0].bias.view(1, -1, 1, 1)
