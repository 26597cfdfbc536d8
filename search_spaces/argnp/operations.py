"""What states of ARGNP are computed by (Cai et al., CVPR 2022, section 3): operations of nodes and of relations.

Each is called with `(v, e, graph)`, a state of all nodes `[n, node]` and one of all edges `[m, relation]` in the order
of `GraphBatch.edge_index`, and answers a state of its kind, or None, which adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.utils import scatter

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.row_norm import RowNorm
from search_spaces.layers.states import Nothing, Same
from search_spaces.operators.graph import AGGREGATOR, GRAPH, RELATION
from search_spaces.operators.graph.made import of_width, step
from search_spaces.operators.graph.relation.gated import SLOPE, Two
from search_spaces.operators.operator import Operator

LEAST = 1e-5


class Widths(NamedTuple):
    """Of the states, and of what all of them together come to."""

    node: int
    relation: int
    node_output: int
    relation_output: int


class NoRelation(nn.Module):
    """Adds nothing to a state of relations."""

    zero = True

    def forward(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> None:
        return None

    def zeros(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return torch.zeros_like(e)


class SameRelation(nn.Module):
    """Hands the state of relations on."""

    skip = True

    def forward(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return e


class PublishedDeviation(nn.Module):
    """What the paper's program computes for a standard deviation: `sqrt(max(mean(x^2) - mean(x), 0) + 1e-5)`, where the
    mean is not squared."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        mean = scatter(values, index, 0, count, "mean")
        squares = scatter(values.square(), index, 0, count, "mean")
        return (functional.relu(squares - mean) + LEAST).sqrt()


class NodeOperation(nn.Module):
    """Messages, aggregated at their targets: `sigmoid(W z + b) * B leaky(A leaky(v)) + U z + c` along each edge, of the
    state `v` of its source and `z`, two layers of its relation `e`."""

    def __init__(self, aggregator: nn.Module, node: int, relation: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(node, node), nn.Linear(node, node)
        self.relation = Two(relation, relation)
        self.gate, self.shift = nn.Linear(relation, node), nn.Linear(relation, node)
        self.aggregator = aggregator

    def forward(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        edges = GraphBatch.of(graph, v)
        source, target = edges.edge_index
        pooled = self.second(functional.leaky_relu(self.first(functional.leaky_relu(v, SLOPE)), SLOPE))
        z = self.relation(e)
        sent = torch.sigmoid(self.gate(z)) * edges.message(pooled, source, None) + self.shift(z)
        answer: Tensor = self.aggregator(sent, target, edges.nodes)
        return answer


class Wrapped(nn.Module):
    """An operation, then a linear map and batch normalisation."""

    def __init__(self, operation: nn.Module, width: int, affine: bool) -> None:
        super().__init__()
        self.operation = operation
        self.linear, self.norm = nn.Linear(width, width), RowNorm(width, affine=affine)

    def forward(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.norm(self.linear(self.operation(v, e, graph)))
        return answer


class Stepped(nn.Module):
    """A node operator of the catalogue, called with `(x, e, graph)`: the relation is what edges have features of."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, v: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.step(functional.leaky_relu(v, SLOPE), e, graph)
        return answer


def node_operation(
    name: str,
    widths: Widths,
    affine: bool,
    published_std: bool,
    known: Mapping[str, Operator] = MappingProxyType({}),
    degree: float = 1.0,
) -> nn.Module:
    """What is called with `(v, e, graph)` and answers a state of nodes, or None: aggregators and node operators, those
    that are `known` or of the catalogue. `degree` is the mean of the data."""
    if name in ("none", "identity"):
        return Nothing() if name == "none" else Same()
    one = known[name] if name in known else AGGREGATOR.operator(name)
    if one.role is GRAPH:
        operation: nn.Module = Stepped(step(one, widths.node, widths.node, widths.relation, degree))
    else:
        published = published_std and name == "std" and not one.own
        aggregator = PublishedDeviation(widths.node) if published else of_width(one, widths.node)
        operation = NodeOperation(aggregator, widths.node, widths.relation)
    return Wrapped(operation, widths.node, affine)


def reads_relation(operation: Any) -> bool:
    """Whether an operation of nodes reads the state of relations; not all node operators do."""
    inner = getattr(operation, "operation", None)
    return bool(inner.step.takes_edges) if isinstance(inner, Stepped) else inner is not None


def relation_operation(name: str, widths: Widths, affine: bool) -> nn.Module:
    """What is called with `(v, e, graph)` and answers a state of relations, or None."""
    if name in ("none", "identity"):
        return NoRelation() if name == "none" else SameRelation()
    return Wrapped(RELATION.operator(name).make(widths.node, widths.relation), widths.relation, affine)
