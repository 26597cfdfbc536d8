"""None: nothing is added."""

from __future__ import annotations

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import Operation


class Zero(Operation):
    """Nothing."""

    zero = True

    def __init__(self, channels: int, stride: int, style: Style, drop_path: DropPath | None = None) -> None:
        super().__init__(stride)

    def response(self, node: Features) -> None:
        return None
