"""What an operator is given: edges as a tensor, or as a graph."""

from __future__ import annotations

from torch import Tensor

from search_spaces.layers.graph_batch import GraphBatch


def graph_and_edges(x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None) -> tuple[GraphBatch, Tensor | None]:
    """The graph, and features of its edges in the order of `graph.edge_index`: with a graph `e` is in that order, with
    a tensor of edges it is in theirs."""
    graph = GraphBatch.of(edges, x, e)
    return graph, graph.edge_attr if isinstance(edges, Tensor) else e
