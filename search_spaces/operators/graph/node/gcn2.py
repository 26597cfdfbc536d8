"""GCNII: deep graph convolutions that remember where they began."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import glorot

from search_spaces.layers.graph_batch import GraphBatch


class Remembering(nn.Module):
    """GCNII as a block of `layers` (Chen et al. 2020, eq. 5): `H_0` is a linear map of the features with a ReLU, and
    `H_l = ReLU(((1 - alpha) S H_{l-1} + alpha H_0) ((1 - beta_l) I + beta_l W_l))` with `beta_l = log(theta / l + 1)`;
    the last layer has no ReLU."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int, layers: int = 4, alpha: float = 0.1, theta: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(width, hidden)
        self.alpha, self.theta = alpha, theta
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        for layer in self.layers:
            glorot(layer.weight)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        graph = GraphBatch.of(edges, x)
        state = begun = torch.relu(self.linear(x))
        for number, layer in enumerate(self.layers, start=1):
            beta = math.log(self.theta / number + 1)
            mixed = (1 - self.alpha) * graph.propagate(state, "gcn") + self.alpha * begun
            state = (1 - beta) * mixed + beta * layer(mixed)
            if number < len(self.layers):
                state = torch.relu(state)
        return state

    def macs(self, nodes: int, edges: int) -> int:
        hidden = self.linear.out_features
        step = (edges + nodes) * hidden + nodes * hidden * hidden
        return nodes * self.linear.weight.numel() + len(self.layers) * step

    def signature(self) -> Hashable:
        return "gcn2", self.linear.in_features, self.linear.out_features, len(self.layers), self.alpha, self.theta
