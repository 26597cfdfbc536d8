"""Nothing in an operator's place."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class Zero(nn.Module):
    """Zeros, whatever it gets."""

    zero = True
    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, x: Tensor, edges: Tensor | GraphBatch | None = None) -> Tensor:
        return x.new_zeros(x.size(0), self.hidden)

    def macs(self, nodes: int, edges: int) -> int:
        return 0

    def signature(self) -> Hashable:
        return "zero"
