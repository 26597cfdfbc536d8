"""Links by the product of both ends."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class DotHead(nn.Module):
    """`x_i . x_j` for one output (Kipf and Welling 2016, "Variational graph auto-encoders", eq. 2), without weights;
    for several, each class has weights for the features of the product (DistMult, Yang et al. 2015)."""

    pairs = True

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.width, self.outputs = width, outputs
        self.classes = nn.Linear(width, outputs) if outputs > 1 else None

    def forward(self, x: Tensor, pairs: Tensor, graph: GraphBatch | None = None) -> Tensor:
        both = x[pairs[0]] * x[pairs[1]]
        return both.sum(1, keepdim=True) if self.classes is None else self.classes(both)

    def macs(self, nodes: int, edges: int) -> int:
        """`edges` are the pairs that are asked for."""
        return edges * self.width * (1 if self.outputs == 1 else 1 + self.outputs)

    def uncounted_macs(self, x: Tensor, pairs: Tensor, graph: GraphBatch | None = None) -> int:
        return pairs.size(1) * self.width

    def signature(self) -> Hashable:
        return "dot", self.width, self.outputs
