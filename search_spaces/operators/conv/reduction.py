"""The skip of a reduction cell of DARTS."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import Normalised, rectified


class FactorisedReduction(Normalised):
    """ReLU; half of the filters see the pixels of even, half those of odd rows and columns, by 1x1 convolutions;
    normalisation. `[b, inputs, h, w]` to `[b, outputs, ceil(h / 2), ceil(w / 2)]`, at least two outputs.

    As an operation it is the skip of a reduction cell, and counts as parameter-free like every skip.
    """

    skip = True

    def __init__(self, inputs: int, outputs: int, style: Style, drop_path: DropPath | None = None) -> None:
        super().__init__(2, drop_path=drop_path)
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=style == Style.STANDALONE)

    def response(self, node: Features) -> Tensor:
        # Only the inputs of a cell are reduced, and they are never empty.
        x = rectified(node)
        even, odd = node.once("even", lambda _: x[:, :, ::2, ::2]), node.once("odd", lambda _: _odd(x))
        return torch.cat([self.even(even), self.odd(odd)], dim=1)


def _odd(x: Tensor) -> Tensor:
    return functional.pad(x[:, :, 1::2, 1::2], (0, x.size(3) % 2, 0, x.size(2) % 2))
