"""Chebyshev convolution."""

from __future__ import annotations

from torch import Tensor

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.node.normalised import Normalised


class Chebyshev(Normalised):
    """Chebyshev convolution of order K = 2 with largest eigenvalue 2 (Defferrard et al. 2016): the scaled
    Laplacian is `-D^-1/2 A D^-1/2`, without self-loops."""

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        near = GraphBatch.of(edges, x).propagate(self.neighbours(x), "unlooped")
        return self.itself(x) - near + self.bias
