"""GraphGym's general convolution: any aggregation of the neighbours, beside the node itself."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch, Norm
from search_spaces.operators.graph import AGGREGATOR
from search_spaces.operators.graph.given import graph_and_edges
from search_spaces.operators.graph.made import of_width


class General(nn.Module):
    """`AGG_j (W x_j [+ U e_ij]) + V x_i [+ b]` over the neighbours j (You et al. 2020, section 4), with any aggregator
    of the catalogue or of one's own, `my_ops.py:Mine`. Raises UsageError for one that changes the width."""

    takes_graph = True
    takes_edges = True
    takes_sparse = True

    def __init__(
        self, width: int, hidden: int, aggregator: str = "mean", bias: bool = True, edge_dim: int | None = None
    ) -> None:
        super().__init__()
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=bias)
        self.edges = None if edge_dim is None else nn.Linear(edge_dim, hidden, bias=False)
        self.reference = aggregator
        # Sums and means of nodes are products with a matrix that the graph keeps.
        self.norm: Norm | None = None
        if edge_dim is None and aggregator in ("sum", "mean"):
            self.norm = "sum" if aggregator == "sum" else "mean"
        self.aggregator: Any = None
        if self.norm is None:
            self.aggregator = of_width(AGGREGATOR.operator(aggregator), hidden)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> Tensor:
        graph, given = graph_and_edges(x, edges, e)
        projected = self.neighbours(x)
        if self.norm is not None:
            near = graph.propagate(projected, self.norm)
        else:
            source, target = graph.edge_index
            sent = graph.message(projected, source, None)
            near = self.aggregator(sent if self.edges is None else sent + self.edges(given), target, graph.nodes)
        return near + self.itself(x)

    def macs(self, nodes: int, edges: int) -> int:
        near = edges * self.itself.out_features if self.aggregator is None else self.aggregator.macs(nodes, edges)
        given = 0 if self.edges is None else edges * self.edges.weight.numel()
        return 2 * nodes * self.itself.weight.numel() + int(near) + given

    def signature(self) -> Hashable:
        given = None if self.edges is None else self.edges.in_features
        return "general", self.reference, tuple(self.itself.weight.shape), self.itself.bias is not None, given
