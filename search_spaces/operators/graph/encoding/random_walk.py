"""Return probabilities of random walks."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from search_spaces.layers.graph_batch import GraphBatch

AT_ONCE = 2**24  # numbers that are held of walks


class RandomWalk(nn.Module):
    """How probable it is that a random walk along the edges is back at its node after 1, 2, ..., `features` steps, the
    diagonals of `(A D^-1)^k` (Dwivedi et al. 2022, "Graph neural networks with learnable structural and positional
    representations", eq. 14). A walk ends where no edge leaves."""

    static = True

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        self.out_features = features

    @torch.no_grad()
    def forward(self, graph: GraphBatch) -> Tensor:
        nodes = torch.arange(graph.nodes, device=graph.edge_index.device)
        source, target = graph.edge_index
        leaving = scatter(torch.ones_like(source, dtype=torch.get_default_dtype()), source, 0, graph.nodes, "sum")
        weight = leaving.clamp(min=1.0).reciprocal()[source, None]
        if torch.compiler.is_exporting():
            return self._walked(nodes, nodes[None], source, target, weight)
        # Walks of several graphs never meet: a column serves one node of each of them.
        within = nodes if graph.counts is None else nodes - (graph.counts.cumsum(0) - graph.counts)[graph.batch]
        columns = int(within.max()) + 1 if graph.nodes else 0
        width = max(1, AT_ONCE // max(1, graph.nodes))
        parts = (
            self._walked(
                within, torch.arange(first, min(first + width, columns))[None].to(nodes), source, target, weight
            )
            for first in range(0, columns, width)
        )
        return sum(parts, torch.zeros(graph.nodes, self.out_features, device=nodes.device, dtype=leaving.dtype))

    def _walked(self, within: Tensor, columns: Tensor, source: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """For the nodes that these columns `[1, c]` belong to; zeros for others."""
        begun = (within[:, None] == columns).to(weight.dtype)
        state, returned = begun, []
        for _ in range(self.out_features):
            state = scatter(weight * state[source], target, 0, within.size(0), "sum")
            returned.append((state * begun).sum(1))
        return torch.stack(returned, 1)

    def macs(self, nodes: int, edges: int) -> int:
        """Of one graph in an exported network; while searching they are computed once per data set."""
        return self.out_features * edges * nodes

    def signature(self) -> Hashable:
        return "random-walk", self.out_features
