"""Attention functions of Auto-GNN: what a node gives to each of its neighbours (Zhou et al. 2019, section 3.1).

Each is made by `(heads, width)` and called with states `[nodes, heads, width]` and the ends of the edges, `source` and
`target [m * heads]`, which count a node's heads one by one; it answers a score per edge and head `[m * heads]`. a.b is
the inner product, * that of elements; l and r are vectors that are learnt for each head, x_i the state of the node that
an edge reaches, x_j of the one that it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2


class Scores(nn.Module):
    """With a vector for both ends of an edge."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.reached, self.left = (nn.Parameter(torch.empty(heads, width)) for _ in range(2))
        for vectors in (self.reached, self.left):
            nn.init.xavier_uniform_(vectors)

    def uncounted_macs(self, states: Tensor, source: Tensor, target: Tensor) -> int:
        """Both products of every node."""
        return 2 * states.size(0) * self.left.numel()


class Gat(Scores):
    """`leaky(l.x_i + r.x_j)` with slope 0.2 (Velickovic et al. 2018)."""

    def forward(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        reached, left = (states * self.reached).sum(2).flatten(), (states * self.left).sum(2).flatten()
        return functional.leaky_relu(reached[target] + left[source], SLOPE)


class SymGat(Scores):
    """`leaky(l.x_i + r.x_j) + leaky(l.x_j + r.x_i)`."""

    def forward(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        reached, left = (states * self.reached).sum(2).flatten(), (states * self.left).sum(2).flatten()
        there = functional.leaky_relu(reached[target] + left[source], SLOPE)
        return there + functional.leaky_relu(reached[source] + left[target], SLOPE)


class Cos(Scores):
    """`(l * x_i).(r * x_j)`."""

    def forward(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        reached, left = (states * self.reached).flatten(0, 1), (states * self.left).flatten(0, 1)
        return (reached[target] * left[source]).sum(1)

    def uncounted_macs(self, states: Tensor, source: Tensor, target: Tensor) -> int:
        return (2 * states.size(0) + source.size(0) // self.left.size(0)) * self.left.numel()


class Linear(nn.Module):
    """`tanh(r.x_j)`, of the neighbour alone; the published program of GraphNAS has `tanh((l + r).x_j)`, which is as
    much."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(heads, width))
        nn.init.xavier_uniform_(self.left)

    def forward(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return torch.tanh((states * self.left).sum(2).flatten())[source]

    def uncounted_macs(self, states: Tensor, source: Tensor, target: Tensor) -> int:
        return states.size(0) * self.left.numel()


class GeneLinear(Scores):
    """`g.tanh(l * x_i + r * x_j)`; g is one for all heads."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__(heads, width)
        self.joined = nn.Parameter(torch.empty(1, width))
        nn.init.xavier_uniform_(self.joined)

    def forward(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        reached, left = (states * self.reached).flatten(0, 1), (states * self.left).flatten(0, 1)
        return (torch.tanh(reached[target] + left[source]) * self.joined).sum(1)

    def uncounted_macs(self, states: Tensor, source: Tensor, target: Tensor) -> int:
        return (2 * states.size(0) + source.size(0) // self.left.size(0)) * self.left.numel()


LEARNT: Mapping[str, type[nn.Module]] = {
    "gat": Gat,
    "sym-gat": SymGat,
    "cos": Cos,
    "linear": Linear,
    "gene-linear": GeneLinear,
}
"""Those with weights, whose scores are normalised over a node's neighbours. "const" and "gcn" have none."""
