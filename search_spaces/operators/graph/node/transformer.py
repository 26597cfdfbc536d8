"""Attention of queries and keys over neighbours."""

from __future__ import annotations

import math
from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.given import graph_and_edges
from search_spaces.operators.graph.heads import checked_dropout, per_head


class GraphTransformer(TransformerConv):
    """`V x_i + sum_j softmax_j(q_i . (k_j [+ U e_ij]) / sqrt(d)) (v_j [+ U e_ij])` over the neighbours j (Shi et al.
    2021, eq. 3 and 4), without gate. `heads` of equal width, side by side. `dropout`: of what is attended to."""

    takes_graph = True
    takes_edges = True

    def __init__(
        self, width: int, hidden: int, heads: int = 2, edge_dim: int | None = None, dropout: float = 0.0
    ) -> None:
        each = per_head("transformer", hidden, heads)
        super().__init__(width, each, heads, dropout=checked_dropout(dropout, "transformer"), edge_dim=edge_dim)

    def plain(self) -> nn.Module:
        return TransformerConv(
            self.in_channels, self.out_channels, self.heads, dropout=self.dropout, edge_dim=self.edge_dim
        )

    def forward(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> Tensor:
        graph, given = graph_and_edges(x, edges, e)
        if self.edge_dim is None and not graph.by_edges:
            maps = (self.lin_query, self.lin_key, self.lin_value)
            query, key, value = (each(x).view(-1, self.heads, self.out_channels) for each in maps)
            attention = graph.attention(self.heads, query.dtype, looped=False)
            scores = attention.scores(query, key) / math.sqrt(self.out_channels)
            near = attention(scores, value, self.dropout if self.training else 0.0)
            return near.flatten(1) + self.lin_skip(x)
        return super().forward(x, graph.edge_index, None if self.edge_dim is None else given)

    def macs(self, nodes: int, edges: int) -> int:
        """Four maps of the nodes, a score and a message per edge."""
        hidden = self.heads * self.out_channels
        given = 0 if self.edge_dim is None else self.edge_dim * edges * hidden
        return 4 * nodes * self.in_channels * hidden + 2 * edges * hidden + given

    def uncounted_macs(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> int:
        """Every edge is scored."""
        return GraphBatch.of(edges, x).edge_index.size(1) * self.heads * self.out_channels

    def signature(self) -> Hashable:
        return "transformer", self.in_channels, self.out_channels, self.heads, self.edge_dim
