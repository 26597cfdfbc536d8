"""Pooling on an edge of a DARTS cell."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import Normalised


class Pool(Normalised):
    """Pooling of 3x3, where padding does not count.

    In the style of supernets it is normalised.
    """

    def __init__(
        self, channels: int, stride: int, style: Style, drop_path: DropPath | None, mode: Literal["max", "avg"]
    ) -> None:
        norm = nn.BatchNorm2d(channels, affine=False) if style == Style.SUPERNET else None
        super().__init__(stride, norm, drop_path)
        self.mode = mode
        self.pool = nn.MaxPool2d(3, stride, 1) if mode == "max" else nn.AvgPool2d(3, stride, 1, count_include_pad=False)

    def plain(self) -> nn.Module:
        return self.pool if self.norm is None and self.drop_path is None else self

    def response(self, node: Features) -> Tensor | None:
        pooled = node.once((self.mode, self.stride), self.pool)
        # An empty node has no stride: only the inputs of a cell are reduced, and they are never empty.
        return node.value if pooled is None and self.norm is not None else pooled
