"""Random node initialisation."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class RandomNodes(nn.Module):
    """Normal features, drawn anew in every pass, in evaluation as well (Abboud et al. 2021, "The surprising power of
    graph neural networks with random node initialization", section 4). Draws are torch's, which the seed fixes."""

    static = False
    stochastic = True
    why_not_exportable = "because it draws random features in every pass"

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        self.out_features = features

    def forward(self, graph: GraphBatch) -> Tensor:
        return torch.randn(graph.nodes, self.out_features, device=graph.edge_index.device)

    def macs(self, nodes: int, edges: int) -> int:
        return 0

    def signature(self) -> Hashable:
        return "rni", self.out_features
