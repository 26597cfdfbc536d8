"""APPNP: personalised PageRank of what a linear map says."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn
from torch_geometric.nn import APPNP

from search_spaces.layers.graph_batch import GraphBatch


class PageRank(APPNP):
    """`Z <- (1 - alpha) S Z + alpha H`, `K` times from `Z = H` (Gasteiger et al. 2019, eq. 4)."""

    def plain(self) -> nn.Module:
        return APPNP(self.K, self.alpha)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        graph, state = GraphBatch.of(edges, x), x
        for _ in range(self.K):
            state = (1 - self.alpha) * graph.propagate(state, "gcn") + self.alpha * x
        return state


class Personalised(nn.Module):
    """APPNP as a block of `steps` steps: a linear map, then `Z <- (1 - alpha) S Z + alpha H` (Gasteiger et al. 2019,
    eq. 4)."""

    takes_graph = True
    takes_sparse = True

    def __init__(self, width: int, hidden: int, steps: int = 10, alpha: float = 0.1) -> None:
        super().__init__()
        self.linear = nn.Linear(width, hidden)
        self.rank = PageRank(steps, alpha)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.rank(self.linear(x), GraphBatch.of(edges, x))
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        hidden = self.linear.out_features
        return nodes * self.linear.in_features * hidden + self.rank.K * (edges + nodes) * hidden

    def signature(self) -> Hashable:
        return "appnp", self.linear.in_features, self.linear.out_features, self.rank.K, self.rank.alpha
