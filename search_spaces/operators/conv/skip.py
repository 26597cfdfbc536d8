"""The way around an operation."""

from __future__ import annotations

from torch import Tensor

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import Operation


class Skip(Operation):
    """The node itself, at stride 1; it is never dropped."""

    skip = True

    def __init__(self, channels: int, stride: int, style: Style, drop_path: DropPath | None = None) -> None:
        super().__init__()
        if stride != 1:
            raise ValueError(f"stride {stride}: a skip hands its input on as it is")

    def response(self, node: Features) -> Tensor | None:
        return node.x
