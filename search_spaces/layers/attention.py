"""Attention over the neighbours in a graph, all heads at once."""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.layers.csr import Csr
from search_spaces.layers.dropout import drop


class Attention:
    """Softmax over the edges that end at a node, and sums that it weights. What is the same for all weights of a layer.

    `heads` heads on `nodes` nodes are one on `nodes * heads`, those of a node side by side, that are not connected
    across heads. `source` and `target` are the ends there of the edges `[m * heads]`, sorted by target.
    """

    def __init__(self, edge_index: Tensor, nodes: int, heads: int, dtype: torch.dtype) -> None:
        """`edge_index [2, m]` is sorted by target."""
        ends = (edge_index[:, :, None] * heads + torch.arange(heads, device=edge_index.device)).flatten(1)
        self.order = ends[1].argsort(stable=True)
        """Of the edges here among `[m, heads]`, flat."""
        self.source, self.target = ends[:, self.order]
        ones = torch.ones_like(self.source, dtype=dtype)
        self.places = Csr.of(self.target, self.source, ones, (nodes * heads, nodes * heads))

    def ends(self, source: Tensor, target: Tensor) -> Tensor:
        """For every edge `[m * heads]` the number of the node it leaves, `source [nodes, heads]`, plus that of the one
        it reaches, `target [nodes, heads]`."""
        left, reached = source.flatten().index_select(0, self.source), target.flatten().index_select(0, self.target)
        return left + reached

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """For every edge `[m * heads]` the inner product of the query of the node it reaches and the key of the one it
        leaves, both `[nodes, heads, f]`."""
        return self.places.sampled(query.flatten(0, 1), key.flatten(0, 1))

    def softmax(self, scores: Tensor) -> Tensor:
        """Of `scores [m * heads]`, over the edges that reach one node."""
        with torch.no_grad():
            starts = self.places.matrix.crow_indices()
            largest = torch.segment_reduce(scores.detach(), "max", offsets=starts, unsafe=True)
        weights = (scores - largest.index_select(0, self.target)).exp()
        sums = weights.new_zeros(self.places.shape[0]).index_add(0, self.target, weights)
        return weights / sums.index_select(0, self.target)

    def __call__(self, scores: Tensor, x: Tensor, dropout: float = 0.0) -> Tensor:
        """The values `x [nodes, heads, f]` of neighbours, summed with the softmax of `scores` after dropout: `[nodes,
        heads, f]`, zero where no edge ends."""
        return self.places.weighted(drop(self.softmax(scores), dropout), x.flatten(0, 1)).view_as(x)
