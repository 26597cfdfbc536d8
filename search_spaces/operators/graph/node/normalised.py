"""What Chebyshev and ARMA convolutions share."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import nn
from torch_geometric.nn.inits import glorot


class Normalised(nn.Module):
    """`V x_i + W sum_j a_ij x_j + b` with `a = D^-1/2 A D^-1/2`; what Chebyshev and ARMA layers share."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        glorot(self.neighbours.weight)
        glorot(self.itself.weight)

    def macs(self, nodes: int, edges: int) -> int:
        return 2 * nodes * self.itself.weight.numel() + edges * self.itself.out_features

    def signature(self) -> Hashable:
        return type(self).__name__, self.itself.in_features, self.itself.out_features
