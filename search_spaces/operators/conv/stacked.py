"""Separable convolution of NASNet, applied twice."""

from __future__ import annotations

from torch import nn


class Separable(nn.Sequential):
    """Depthwise and pointwise convolution with nothing between them, BN, ReLU; then the same again without stride
    and last ReLU. The input is rectified by the caller. `(n, width, h, w)` to
    `(n, width, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, width: int, stride: int, kernel: int) -> None:
        def once(stride: int) -> tuple[nn.Module, ...]:
            depthwise = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)
            return depthwise, nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)

        super().__init__(*once(stride), nn.ReLU(), *once(1))
