"""SGC: simplified graph convolution."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import SGConv

from search_spaces.layers.graph_batch import GraphBatch


class Simplified(SGConv):
    """SGC (Wu et al. 2019, eq. 8): `S^K X W + b` with `S = D^-1/2 (A + I) D^-1/2`. Features that nothing is
    learnt of are propagated once, before training, where that pays. Elsewhere the map comes first, which is the same
    function, and moves fewer features where it narrows them."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int, steps: int = 2) -> None:
        super().__init__(width, hidden, K=steps)

    def plain(self) -> nn.Module:
        return SGConv(self.in_channels, self.out_channels, K=self.K)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        graph = GraphBatch.of(edges, x)
        spread = graph.spread(x, "gcn", self.K)
        if spread is not None:
            answer: Tensor = self.lin(spread)
            return answer
        state = functional.linear(x, self.lin.weight)
        for _ in range(self.K):
            state = graph.propagate(state, "gcn")
        return state + self.lin.bias

    def macs(self, nodes: int, edges: int) -> int:
        return self.out_channels * (nodes * self.in_channels + self.K * (edges + nodes))

    def signature(self) -> Hashable:
        return "sgc", self.in_channels, self.out_channels, self.K
