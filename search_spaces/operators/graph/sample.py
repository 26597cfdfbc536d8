"""Graphs without self-loops and repeated edges, and what an operator costs on one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.counter import counts
from search_spaces.layers.links import Links
from search_spaces.operators.operator import Operator


def ring(nodes: int, edges: int) -> Tensor:
    """Edges [2, edges]: from every node to the next, then to the one after it, and so on."""
    number = torch.arange(edges)
    source, distance = number % nodes, 1 + number // nodes % max(1, nodes - 1)
    return torch.stack([source, (source + distance) % nodes])


class OnEdges(nn.Module):
    """An operator as a network of `(x, edge_index)`."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        answer: Tensor = self.operator(x, Links(edge_index, x.size(0)))
        return answer


def counted(operator: Operator, width: int, hidden: int, nodes: int, edges: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a pass over a graph of this size."""
    return counts(lambda: OnEdges(operator.make(width, hidden)), (torch.ones(nodes, width), ring(nodes, edges)))
