"""Graphs without self-loops and repeated edges, and what an operator costs on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.counter import counts
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.made import made
from search_spaces.operators.operator import Operator


def ring(nodes: int, edges: int) -> Tensor:
    """Edges [2, edges]: from every node to the next, then to the one after it, and so on."""
    number = torch.arange(edges)
    source, distance = number % nodes, 1 + number // nodes % max(1, nodes - 1)
    return torch.stack([source, (source + distance) % nodes])


def counted(operator: Operator, width: int, hidden: int, nodes: int, edges: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a pass over a graph of this size."""
    return counts(lambda: made(operator, width, hidden), (torch.ones(nodes, width), ring(nodes, edges)))


class OnTensors(nn.Module):
    """Something that takes a graph, called with tensors: `(x, edge_index[, edge_attr])`."""

    def __init__(self, module: nn.Module, called: Callable[[Any, Tensor, GraphBatch], Tensor]) -> None:
        super().__init__()
        self.module, self.called = module, called

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        return self.called(self.module, x, GraphBatch.of(edge_index, x, edge_attr))


def step_counts(
    make: Callable[[], nn.Module], width: int, nodes: int, edges: int, edge_dim: int | None
) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a layer that is called with `(x, e, graph)`, on a graph of this size."""
    inputs = [torch.ones(nodes, width), ring(nodes, edges)]
    if edge_dim is not None:
        inputs.append(torch.ones(edges, edge_dim))
    return counts(lambda: OnTensors(make(), lambda step, x, graph: step(x, graph.edge_attr, graph)), inputs)


def aggregator_counts(aggregator: Operator, width: int, nodes: int, edges: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of an aggregator of as many values `width` wide as there are edges."""

    def called(module: Any, x: Tensor, graph: GraphBatch) -> Tensor:
        answer: Tensor = module(x.index_select(0, graph.edge_index[0]), graph.edge_index[1], graph.nodes)
        return answer

    inputs = (torch.ones(nodes, width), ring(nodes, edges))
    return counts(lambda: OnTensors(aggregator.make(width), called), inputs)


def encoding_counts(encoding: Operator, nodes: int, edges: int) -> tuple[int, int, int]:
    """Features, parameters and multiply-accumulates of an encoding on a graph of this size."""
    inputs = (torch.ones(nodes, 1), ring(nodes, edges))
    few = OnTensors(encoding.make(), lambda module, x, graph: module(graph))(torch.ones(2, 1), ring(2, 2))
    made = counts(lambda: OnTensors(encoding.make(), lambda module, x, graph: module(graph)), inputs)
    return few.size(1), *made


def readout_counts(readout: Operator, width: int, nodes: int) -> tuple[int, int, int]:
    """Features, parameters and multiply-accumulates of a readout of this many nodes."""
    inputs = (torch.ones(nodes, width), torch.zeros(2, 0, dtype=torch.long))
    few = OnTensors(readout.make(width), lambda module, x, graph: module(x, graph))(torch.ones(2, width), inputs[1])
    made = counts(lambda: OnTensors(readout.make(width), lambda module, x, graph: module(x, graph)), inputs)
    return few.size(1), *made


def rewired_counts(rewiring: Operator, width: int, nodes: int, edges: int) -> tuple[int, int, int, int]:
    """Nodes and edges of what a rewiring makes of a graph of this size, its parameters and its multiply-accumulates on
    states that are `width` wide."""
    inputs = (torch.ones(nodes, width), ring(nodes, edges))
    graph = rewiring.make()(inputs[0], GraphBatch.of(inputs[1], inputs[0])).graph
    made = counts(lambda: OnTensors(rewiring.make(), lambda module, x, graph: module(x, graph).x), inputs)
    return graph.nodes, graph.edge_index.size(1), *made
