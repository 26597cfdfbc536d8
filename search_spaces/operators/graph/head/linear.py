"""A linear map of every node, or of every graph."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class LinearHead(nn.Module):
    """`W x + b` for every row."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor, graph: GraphBatch | None = None) -> Tensor:
        answer: Tensor = self.linear(x)
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        return nodes * self.linear.weight.numel()

    def signature(self) -> Hashable:
        return "linear", tuple(self.linear.weight.shape)
