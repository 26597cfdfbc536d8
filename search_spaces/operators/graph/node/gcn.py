"""GCN: graph convolution."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from search_spaces.layers.graph_batch import GraphBatch


class Convolution(GCNConv):
    """GCN (Kipf and Welling 2017): `D^-1/2 (A + I) D^-1/2 X W + b`."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)

    def plain(self) -> nn.Module:
        return GCNConv(self.in_channels, self.out_channels)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        return GraphBatch.of(edges, x).propagate(self.lin(x), "gcn") + self.bias

    def macs(self, nodes: int, edges: int) -> int:
        return self.out_channels * (nodes * self.in_channels + edges + nodes)

    def signature(self) -> Hashable:
        return "gcn", self.in_channels, self.out_channels
