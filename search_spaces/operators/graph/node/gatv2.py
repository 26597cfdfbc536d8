"""GATv2: attention that ranks neighbours by the node that attends."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.given import graph_and_edges
from search_spaces.operators.graph.heads import checked_dropout, per_head


class DynamicAttention(GATv2Conv):
    """GATv2 (Brody et al. 2022, eq. 7): `a . LeakyReLU(W x_i + V x_j [+ U e_ij])` ranks what node i attends to, itself
    as well, with the mean of its edges' features. `heads` of equal width, side by side.
    `dropout`: of what is attended to."""

    takes_graph = True
    takes_edges = True

    def __init__(
        self, width: int, hidden: int, heads: int = 2, edge_dim: int | None = None, dropout: float = 0.0
    ) -> None:
        # Without features of edges the self-loops are given.
        each, loops = per_head("gatv2", hidden, heads), edge_dim is not None
        given = {"dropout": checked_dropout(dropout, "gatv2"), "add_self_loops": loops, "edge_dim": edge_dim}
        super().__init__(width, each, heads, **given)

    def plain(self) -> nn.Module:
        return GATv2Conv(self.in_channels, self.out_channels, self.heads, dropout=self.dropout, edge_dim=self.edge_dim)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> Tensor:
        graph, given = graph_and_edges(x, edges, e)
        if self.edge_dim is None:
            return super().forward(x, graph.looped)
        return super().forward(x, graph.edge_index, given)

    def macs(self, nodes: int, edges: int) -> int:
        """Two maps of the nodes, a score and a message per edge and per node."""
        hidden = self.heads * self.out_channels
        given = 0 if self.edge_dim is None else self.edge_dim * (nodes + edges) * hidden
        return 2 * nodes * self.in_channels * hidden + 2 * (nodes + edges) * hidden + given

    def uncounted_macs(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> int:
        """Every edge and every node's attention to itself is scored."""
        return (x.size(0) + GraphBatch.of(edges, x).unlooped.size(1)) * self.heads * self.out_channels

    def signature(self) -> Hashable:
        return "gatv2", self.in_channels, self.out_channels, self.heads, self.edge_dim
