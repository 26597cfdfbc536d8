"""Laplacian eigenvectors."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError
from search_spaces.layers.graph_batch import GraphBatch

LARGEST = 5000  # nodes of one graph; a dense matrix of all pairs


class Laplacian(nn.Module):
    """The eigenvectors of `I - D^-1/2 A D^-1/2` of each graph that belong to its `features` smallest eigenvalues but
    the first (Dwivedi et al. 2023, "Benchmarking graph neural networks"), each of length 1, with its largest entry
    positive; zeros where a graph has fewer. An edge counts in both directions, once; self-loops do not count."""

    static = True
    ordered = "because eigenvectors are known up to a sign, and up to a rotation where eigenvalues are equal"
    why_not_exportable = "because ONNX has no eigenvectors; give them to the network as features"

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        self.out_features = features

    @torch.no_grad()
    def forward(self, graph: GraphBatch) -> Tensor:
        """Raises UsageError for a graph that is too large for a dense matrix."""
        counts = [graph.nodes] if graph.counts is None else graph.counts.tolist()
        if max(counts, default=0) > LARGEST:
            raise UsageError(
                f"laplacian encodings take graphs of at most {LARGEST} nodes, and one has {max(counts)}; "
                "use random-walk"
            )
        answer = torch.zeros(graph.nodes, self.out_features, device=graph.edge_index.device)
        starts = graph.batch.new_tensor([0, *counts]).cumsum(0)
        edges = graph.unlooped
        belongs = graph.batch[edges[1]]
        for number, nodes in enumerate(counts):
            found = _eigenvectors(edges[:, belongs == number] - starts[number], nodes, self.out_features)
            answer[starts[number] : starts[number + 1], : found.size(1)] = found.to(answer.dtype)
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        """None of a network: they are computed once per data set."""
        return 0

    def signature(self) -> Hashable:
        return "laplacian", self.out_features


def _eigenvectors(edges: Tensor, nodes: int, most: int) -> Tensor:
    """`[nodes, at most most]`."""
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64, device=edges.device)
    adjacency[edges[0], edges[1]] = 1.0
    adjacency = torch.maximum(adjacency, adjacency.t())
    scale = adjacency.sum(1).clamp(min=1.0).rsqrt()  # an isolated node has no neighbours to scale
    laplacian = torch.eye(nodes, dtype=torch.float64, device=edges.device) - scale[:, None] * adjacency * scale
    vectors = torch.linalg.eigh(laplacian).eigenvectors[:, 1 : most + 1]
    if not vectors.numel():
        return vectors
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()
