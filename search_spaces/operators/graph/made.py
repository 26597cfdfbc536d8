"""Node operators as graph networks call them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.operator import Operator


class OnTensor(nn.Module):
    """An operator that knows nothing of `GraphBatch`: it gets the edges as a tensor `[2, edges]`."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.operator(x, GraphBatch.of(edges, x).edge_index)
        return answer


def made(operator: Operator, width: int, hidden: int) -> nn.Module:
    """The operator from `width` to `hidden` features, called with `(x, links)`."""
    module = operator.make(width, hidden)
    return module if getattr(module, "takes_graph", False) else OnTensor(module)


def takes_sparse(operator: Operator) -> bool:
    """Whether it can be given `SparseFeatures`."""
    return bool(getattr(operator.kind, "takes_sparse", False))


class Step(nn.Module):
    """A node operator as its role says: whatever of a graph the operator takes, it is called with `(x, e, graph)`."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator
        self.takes_graph = getattr(operator, "takes_graph", False)
        self.takes_edges = getattr(operator, "takes_edges", False)

    def forward(self, x: Tensor, e: Tensor | None, graph: Tensor | GraphBatch) -> Tensor:
        """`x [nodes, width]`, and features of the edges in the order of `graph.edge_index`, or None, to
        `[nodes, hidden]`."""
        edges = graph if self.takes_graph else GraphBatch.of(graph, x).edge_index
        answer: Tensor = self.operator(x, edges, e) if self.takes_edges else self.operator(x, edges)
        return answer


def step(
    operator: Operator,
    width: int,
    hidden: int,
    edge_dim: int | None = None,
    degree: float | None = None,
    **options: Any,
) -> Step:
    """The operator from `width` to `hidden` features, called with `(x, e, graph)`.

    `edge_dim`: features of the edges that it is given, where it takes any; `degree`: the mean degree, where it asks;
    further options are its own. Raises UsageError where it cannot be made so.
    """
    kind: Any = operator.kind
    if edge_dim is not None and getattr(kind, "takes_edges", False):
        options["edge_dim"] = edge_dim
    if degree is not None and getattr(kind, "takes_degree", False) and "degree" not in operator.options:
        options["degree"] = degree
    return Step(operator.make(width, hidden, **options))


def of_width(aggregator: Operator, width: int) -> nn.Module:
    """The aggregator, or readout, of `width` features. Raises UsageError where it answers another number of them."""
    made = aggregator.make(width)
    found = getattr(made, "out_features", width)
    if found != width:
        raise UsageError(f"{aggregator.role.name} '{aggregator.reference}' answers {found} features for {width}")
    return made


def joined(x: Tensor, encodings: Iterable[Any], graph: GraphBatch) -> Tensor:
    """Features of nodes, followed by encodings of the graph."""
    for encoding in encodings:
        x = torch.cat([x, encoded(encoding, graph).to(x.dtype)], 1)
    return x


def encoded(encoding: Any, graph: GraphBatch) -> Tensor:
    """An encoding of a graph, computed once where it is always the same; of a sample that of the whole graph."""
    if getattr(encoding, "static", False):
        if graph.piece is not None:
            return encoded(encoding, graph.piece.whole)[graph.piece.rows]
        return graph.once(("encoding", encoding.signature()), lambda: encoding(graph))
    answer: Tensor = encoding(graph)
    return answer
