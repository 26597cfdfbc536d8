"""A full convolution, also dilated, of NASNet."""

from __future__ import annotations

from torch import nn


class ConvBN(nn.Sequential):
    """Convolution without bias and BN, padded to keep the resolution; the input is rectified by the caller.
    `(n, inputs, h, w)` to `(n, outputs, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (size // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False), nn.BatchNorm2d(outputs)
        )


class Convolution(ConvBN):
    """A full convolution that keeps the width; the input is rectified by the caller. `(n, width, h, w)` to
    `(n, width, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, width: int, stride: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(width, width, kernel, stride, dilation)
