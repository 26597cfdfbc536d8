"""ARMA convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn.inits import glorot

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.node.normalised import Normalised


class Arma(Normalised):
    """ARMA convolution with one stack and one layer (Bianchi et al. 2021): `relu(a X W + X V + b)`.

    `recurrent` holds the weights of further layers. With one layer it takes no part; the benchmark's
    networks own it, and its parameter counts include it.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.recurrent = nn.Parameter(torch.empty(hidden, hidden))
        glorot(self.recurrent)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        near = GraphBatch.of(edges, x).propagate(self.neighbours(x), "symmetric")
        return functional.relu(near + self.itself(x) + self.bias)
