"""Convolution along the rows, then along the columns."""

from __future__ import annotations

from torch import nn


class Split(nn.Sequential):
    """Convolution along the rows, then along the columns, and BN; the input is rectified by the caller.
    `(n, width, h, w)` to `(n, width, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, width: int, stride: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
            nn.Conv2d(width, width, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False),
            nn.BatchNorm2d(width),
        )
