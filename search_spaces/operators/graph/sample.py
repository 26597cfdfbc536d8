"""Graphs without self-loops and repeated edges, and what an operator costs on one."""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.counter import counts
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
