"""Pooling of NASNet."""

from __future__ import annotations

from typing import Literal

from torch import nn


def pooling(width: int, stride: int, kernel: int, mode: Literal["max", "avg"]) -> nn.Module:
    """The average of the pixels that exist, or the largest one: `(n, width, h, w)` to
    `(n, width, ceil(h / stride), ceil(w / stride))`."""
    if mode == "avg":
        return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    return nn.MaxPool2d(kernel, stride, kernel // 2)
