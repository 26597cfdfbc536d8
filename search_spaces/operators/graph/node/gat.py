"""GAT: attention over neighbours."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.heads import checked_dropout, per_head


class Attention(GATConv):
    """GAT (Velickovic et al. 2018); every node attends to itself as well. `heads` of equal width, side by side, or with
    `concat=False` each `hidden` wide, of which the mean is taken. `dropout`: of what is attended to."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int, heads: int = 2, concat: bool = True, dropout: float = 0.0) -> None:
        # The self-loops are given.
        each = per_head("gat", hidden, heads) if concat else hidden
        super().__init__(width, each, heads, concat, dropout=checked_dropout(dropout, "gat"), add_self_loops=False)

    def plain(self) -> nn.Module:
        return GATConv(self.in_channels, self.out_channels, self.heads, self.concat, dropout=self.dropout)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        graph = GraphBatch.of(edges, x)
        if graph.by_edges:
            return super().forward(x, graph.looped)
        states = self.lin(x).view(-1, self.heads, self.out_channels)
        ends = torch.cat([self.att_src, self.att_dst])  # [2, heads, out]
        source, target = (states * ends[:, None]).sum(-1)
        attention = graph.attention(self.heads, states.dtype, looped=True)
        scores = functional.leaky_relu(attention.ends(source, target), self.negative_slope)
        near = attention(scores, states, self.dropout if self.training else 0.0)
        return (near.flatten(1) if self.concat else near.mean(1)) + self.bias

    def uncounted_macs(self, x: Tensor, edges: Tensor | GraphBatch) -> int:
        """Every node is scored as a source and as a target, by products of elements."""
        return 2 * x.size(0) * self.heads * self.out_channels

    def macs(self, nodes: int, edges: int) -> int:
        """A map, a message per edge and per node, and every node scored as a source and as a target."""
        hidden = self.heads * self.out_channels
        return nodes * self.in_channels * hidden + (edges + 3 * nodes) * hidden

    def signature(self) -> Hashable:
        return "gat", self.in_channels, self.out_channels, self.heads, self.concat
