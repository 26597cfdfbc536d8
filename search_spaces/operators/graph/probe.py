"""Entries of all roles as one thing, so that they are tested alike: a network of nodes, edges and counts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import AGGREGATOR, ENCODING, GRAPH, HEAD, READOUT, RELATION, REWIRING
from search_spaces.operators.graph.made import step
from search_spaces.operators.operator import Operator

WIDTH, HIDDEN, EDGE_DIM = 6, 4, 3


class Probe(nn.Module):
    """`(x [nodes, WIDTH], edge_index [2, edges], counts [graphs] or None)` to what one entry answers, for each of the
    `nodes`, `graphs` or `edges`.

    Pairs are the edges. Features of edges are computed of both ends, so that they go along with every renumbering.
    """

    def __init__(self, operator: Operator, *, edge_dim: int | None = None) -> None:
        super().__init__()
        self.role, self.edge_dim = operator.role, EDGE_DIM if operator.role is RELATION else edge_dim
        self.entry = self._made(operator)
        self.answers = "nodes"
        if self.role is READOUT:
            self.answers = "graphs"
        if self.role is RELATION or getattr(self.entry, "pairs", False):
            self.answers = "edges"

    def _made(self, operator: Operator) -> nn.Module:
        if self.role is GRAPH:
            return step(operator, WIDTH, WIDTH if operator.skip else HIDDEN, self.edge_dim, 2.0)
        widths = {"width": WIDTH, "outputs": HIDDEN, "node_width": WIDTH, "edge_width": EDGE_DIM}
        return operator.make(*(widths[name] for name in self.role.made_by))

    @property
    def out_features(self) -> int | None:
        """The width of its answers, where that is known."""
        if self.role is HEAD:
            return HIDDEN
        if self.role in (REWIRING, RELATION):
            return WIDTH if self.role is REWIRING else EDGE_DIM
        if self.role is GRAPH:
            return WIDTH if getattr(self.entry.operator, "skip", False) else HIDDEN
        return getattr(self.entry, "out_features", None)

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor | None = None) -> Any:
        graph = GraphBatch.of(edge_index, x, counts=counts)
        if self.role is GRAPH:
            return self.entry(x, self.features(x, graph.edge_index), graph)
        if self.role is RELATION:
            return graph.as_given(self.entry(x, self.features(x, graph.edge_index), graph))
        if self.role is AGGREGATOR:
            source, target = graph.edge_index
            return self.entry(x[source], target, graph.nodes)
        if self.role is ENCODING:
            return self.entry(graph)
        if self.role is HEAD:
            return self.entry(x, edge_index, graph) if self.answers == "edges" else self.entry(x, graph)
        if self.role is REWIRING:  # what nodes hear of one another there, in two steps
            more, other, places = self.entry(x, graph)
            return other.propagate(other.propagate(more, "mean"), "mean")[places]
        return self.entry(x, graph)

    def features(self, x: Tensor, edge_index: Tensor) -> Tensor | None:
        """Of edges `[edges, EDGE_DIM]`."""
        if self.edge_dim is None:
            return None
        source, target = edge_index
        return torch.sin(x[source, : self.edge_dim] + 2 * x[target, : self.edge_dim])

    def said_macs(self, nodes: int, edges: int) -> int | None:
        """What the entry says it costs, and what is done here beside it; None where it says nothing."""
        if not hasattr(self._own, "macs"):
            return None
        beside = 2 * WIDTH * (edges + 2 * nodes) if self.role is REWIRING else 0
        return int(self._own.macs(nodes, edges)) + beside

    def said_signature(self) -> Hashable | None:
        """The entry's; None where it has none."""
        found: Hashable | None = self._own.signature() if hasattr(self._own, "signature") else None
        return found

    @property
    def _own(self) -> Any:
        return self.entry.operator if self.role is GRAPH else self.entry


def trait(module: nn.Module, name: str) -> Any:
    """What a module, or the first one within it, says under this name; None where none does."""
    return next((getattr(each, name) for each in module.modules() if hasattr(each, name)), None)
