"""The nodes of a graph, aggregated."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import AGGREGATOR


class Aggregated(nn.Module):
    """All nodes of a graph by an aggregator, which may be any that neighbours are aggregated by."""

    def __init__(self, width: int, by: str) -> None:
        super().__init__()
        operator = AGGREGATOR.operator(by)
        self.aggregator = operator.make(width)
        self.out_features: int = self.aggregator.out_features

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        answer: Tensor = self.aggregator(x, graph.batch, graph.graphs)
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        """Of one graph."""
        found: int = self.aggregator.macs(1, nodes)
        return found

    def signature(self) -> Hashable:
        return "readout", self.aggregator.signature()
