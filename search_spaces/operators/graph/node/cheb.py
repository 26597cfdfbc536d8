"""Chebyshev convolution."""

from __future__ import annotations

from torch import Tensor

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.node.normalised import Normalised


class Chebyshev(Normalised):
    """Chebyshev convolution of order K = 2 with largest eigenvalue 2 (Defferrard et al. 2016): the scaled
    Laplacian is `-D^-1/2 A D^-1/2`, without self-loops."""

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        projected = self.neighbours(x)
        near, weight = GraphBatch.of(edges, x).normalised(projected.dtype, "target_to_source", loops="removed")
        return self.itself(x) - self.propagate(near, x=projected, weight=weight) + self.bias
