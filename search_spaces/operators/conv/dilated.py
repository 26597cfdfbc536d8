"""Dilated separable convolution of DARTS."""

from __future__ import annotations

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.operators.conv.convolutions import Convolutions


class DilatedConvolution(Convolutions):
    """ReLU, depthwise convolution that reads every second pixel, 1x1 convolution, normalisation."""

    def __init__(self, channels: int, stride: int, style: Style, drop_path: DropPath | None, kernel: int) -> None:
        super().__init__(channels, kernel, stride, 2, 1, style, drop_path)
