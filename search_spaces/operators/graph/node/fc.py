"""A linear map without neighbours."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class Dense(nn.Linear):
    """A linear map of every node by itself."""

    takes_graph = True
    takes_sparse = True

    def plain(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch | None = None) -> Tensor:
        return super().forward(x)

    def macs(self, nodes: int, edges: int) -> int:
        return nodes * self.weight.numel()

    def signature(self) -> Hashable:
        return "fc", self.in_features, self.out_features
