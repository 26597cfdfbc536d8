"""The relations of ARGNP (Cai et al., CVPR 2022, section 3.2): what the ends of an edge are to each other changes its
state."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.graph_batch import GraphBatch

SLOPE = 0.2


class Two(nn.Module):
    """Two linear maps, each with a leaky rectifier behind it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.leaky_relu(self.first(x), SLOPE)
        return functional.leaky_relu(self.second(hidden), SLOPE)


class Distance(nn.Module):
    """`|a - b|` of the states of the two ends of an edge."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs()


class Gauss(nn.Module):
    """`exp(-(a - b)^2 / 2)`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (-(a - b).square() / 2).exp()


class Larger(nn.Module):
    """`max(a, b)`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Sum(nn.Module):
    """`a + b`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Mean(nn.Module):
    """`(a + b) / 2`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / 2


class Product(nn.Module):
    """`a * b`, feature by feature."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


COMPARISONS: Mapping[str, type[nn.Module]] = {
    "sub": Distance,
    "gauss": Gauss,
    "max": Larger,
    "sum": Sum,
    "mean": Mean,
    "had": Product,
}


class Gated(nn.Module):
    """`sigmoid(W z + b) * leaky(e) + U z + c` for each edge, `z` two layers of what its two ends are to each other."""

    def __init__(self, node_width: int, edge_width: int, by: str) -> None:
        super().__init__()
        self.out_features, self.by = edge_width, by
        self.compare = COMPARISONS[by]()
        self.ends = Two(node_width, edge_width)
        self.gate, self.shift = nn.Linear(edge_width, edge_width), nn.Linear(edge_width, edge_width)

    def forward(self, x: Tensor, e: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        edges = GraphBatch.of(graph, x)
        source, target = edges.edge_index
        z = self.ends(self.compare(x[source], x[target]))
        answer: Tensor = torch.sigmoid(self.gate(z)) * functional.leaky_relu(e, SLOPE) + self.shift(z)
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        return edges * (self.ends.first.weight.numel() + 3 * self.gate.weight.numel())

    def signature(self) -> Hashable:
        return "relation", self.by, self.ends.first.in_features, self.out_features
