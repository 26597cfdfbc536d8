"""Dropout of raw features that are mostly zero."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.dropout import drop
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures


class FeatureDropout(nn.Dropout):
    """Dropout of raw features `[nodes, f]`; on the CPU mostly-zero ones become `SparseFeatures`. A bag of words has
    about one non-zero in eighty, and dropout keeps zeros. With `dense` they never do: some layer takes none."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.dense = False

    def plain(self) -> nn.Module:
        return nn.Dropout(self.p)

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        p = self.p if self.training else 0.0
        # In evaluation it costs more to find the zeros than it saves, once.
        found = graph.sparse(x) if not self.dense and (self.training or x is graph.features) else None
        if found is None:
            return drop(x, p)
        return SparseFeatures(found.with_values(drop(found.matrix.values(), p)) if p > 0 else found)
