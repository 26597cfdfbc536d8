"""The way around an operator."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class Skip(nn.Module):
    """What it gets."""

    skip = True
    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, edges: Tensor | GraphBatch | None = None) -> Tensor:
        return x

    def macs(self, nodes: int, edges: int) -> int:
        return 0

    def signature(self) -> Hashable:
        return "skip"
