"""GAT: attention over neighbours."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GATConv

from search_spaces.layers.graph_batch import GraphBatch


class Attention(GATConv):
    """GAT with two heads of half the width (Velickovic et al. 2018); every node attends to itself as well."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden // 2, heads=2, add_self_loops=False)  # the self-loops are given

    def plain(self) -> nn.Module:
        return GATConv(self.in_channels, self.out_channels, self.heads)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        return super().forward(x, GraphBatch.of(edges, x).looped)

    def uncounted_macs(self, x: Tensor, edges: Tensor | GraphBatch) -> int:
        """Every node is scored as a source and as a target."""
        return 2 * x.size(0) * self.heads * self.out_channels
