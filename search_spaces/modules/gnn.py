"""Graph layers and the networks made of them, on PyTorch Geometric message passing.

Graph convolutions are linear in their input up to the aggregation, so projecting first and sending the
narrow result is the same function as aggregating first; with bag-of-words features it moves 1433 / 64
times less data. PyTorch Geometric's GCN and GAT do so themselves and are used as they are; the layers
here do it for the others. Nothing about a graph is remembered between calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import remove_self_loops

SPARSE_BELOW = 0.1
"""Share of non-zero raw features below which training multiplies them as a sparse matrix."""


class Aggregate(MessagePassing):
    """`AGG_j (W x_j) + V x_i + b` over the in-neighbours j of node i: GraphSAGE with "mean" (Hamilton et al.
    2017), the k-GNN with "sum" and k = 1 (Morris et al. 2019). `(nodes, width), (2, edges)` to
    `(nodes, hidden)`.
    """

    def __init__(self, width: int, hidden: int, aggregation: str) -> None:
        super().__init__(aggr=aggregation)
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.neighbours(x)) + self.itself(x) + self.bias


class Isomorphism(MessagePassing):
    """GIN with one linear map and epsilon 0 (Xu et al. 2019, eq. 4.1): `W (x_i + sum_j x_j) + b`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(aggr="sum")
        self.linear = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        projected = self.linear(x)
        return projected + self.propagate(edge_index, x=projected) + self.bias


class Normalised(MessagePassing):
    """`V x_i + W sum_j a_ij x_j + b` with `a = D^-1/2 A D^-1/2`; what Chebyshev and ARMA layers share."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(aggr="sum")
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        glorot(self.neighbours.weight)
        glorot(self.itself.weight)

    def spread(self, x: Tensor, edge_index: Tensor, degrees: str) -> Tensor:
        """`sum_j a_ij x_j` without added self-loops; `degrees` count the edges into ("source_to_target") or out
        of ("target_to_source") a node, which differ on directed graphs only."""
        edges, weight = gcn_norm(edge_index, None, x.size(0), add_self_loops=False, flow=degrees, dtype=x.dtype)
        return self.propagate(edges, x=x, weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.view(-1, 1) * x_j


class Chebyshev(Normalised):
    """Chebyshev convolution of order K = 2 with largest eigenvalue 2 (Defferrard et al. 2016): the scaled
    Laplacian is `-D^-1/2 A D^-1/2`, without self-loops."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edges, _ = remove_self_loops(edge_index)
        return self.itself(x) - self.spread(self.neighbours(x), edges, "target_to_source") + self.bias


class Arma(Normalised):
    """ARMA convolution with one stack and one layer (Bianchi et al. 2021): `relu(a X W + X V + b)`.

    `recurrent` holds the weights of further layers. With one layer it takes no part; the benchmark's
    networks own it, and its parameter counts include it.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.recurrent = nn.Parameter(torch.empty(hidden, hidden))
        glorot(self.recurrent)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        spread = self.spread(self.neighbours(x), edge_index, "source_to_target")
        return functional.relu(spread + self.itself(x) + self.bias)


def operation(name: str, width: int, hidden: int) -> nn.Module:
    """The layer of an operation from `width` to `hidden` features; fc and skip take no edges.

    Raises ValueError for an unknown name.
    """
    if name == "gat":
        return GATConv(width, hidden // 2, heads=2)
    if name == "gcn":
        return GCNConv(width, hidden)
    if name == "gin":
        return Isomorphism(width, hidden)
    if name == "cheb":
        return Chebyshev(width, hidden)
    if name == "sage":
        return Aggregate(width, hidden, "mean")
    if name == "arma":
        return Arma(width, hidden)
    if name == "graph":
        return Aggregate(width, hidden, "sum")
    if name == "fc":
        return nn.Linear(width, hidden)
    if name == "skip":
        return nn.Identity()
    raise ValueError(f"'{name}' is no graph operation")


class NodeNetwork(nn.Module):
    """A network of computing nodes, each reading one earlier node (NAS-Bench-Graph, Qin et al. 2022, section 3).

    `links[k]` is the input of node k + 1; 0 is the raw features, after dropout. A node that reads hidden
    features applies batch normalisation, ReLU and dropout to them, then its operation. A skip of the raw
    features passes them on. The nodes that nobody reads are concatenated, then ReLU, a linear map to
    `hidden` and one to `classes` with nothing between them, as the benchmark has it for Cora and CiteSeer.

    Every node owns a batch normalisation; those of nodes that read raw features have no use, but count.
    `(nodes, features), (2, edges)` to `(nodes, classes)`.
    Raises ValueError when a node that nobody reads carries raw features.
    """

    def __init__(
        self, links: Sequence[int], operations: Sequence[str], features: int, classes: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.links = tuple(links)
        self.dropout = dropout
        self.raw = [True]
        for link, name in zip(links, operations, strict=True):
            self.raw.append(self.raw[link] and name == "skip")
        self.local = [name in ("fc", "skip") for name in operations]
        self.leaves = [node for node in range(1, len(links) + 1) if node not in links]
        if any(self.raw[leaf] for leaf in self.leaves):
            raise ValueError(f"a skip of the raw features is not read: links {self.links}, {', '.join(operations)}")
        self.operations = nn.ModuleList(
            operation(name, features if self.raw[link] else hidden, hidden)
            for link, name in zip(links, operations, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in links)
        self.join = nn.Linear(hidden * len(self.leaves), hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        states = [drop_features(x, self.dropout) if self.training else x]
        for node, link in enumerate(self.links):
            state = states[link]
            if not self.raw[link]:
                state = drop(functional.relu(self.norms[node](state)), self.dropout if self.training else 0.0)
            layer = self.operations[node]
            states.append(layer(state) if self.local[node] else layer(state, edge_index))
        leaves = torch.cat([states[leaf] for leaf in self.leaves], dim=1)
        return self.classify(self.join(functional.relu(leaves)))


def drop(x: Tensor, probability: float) -> Tensor:
    """Dropout. On the CPU by comparing uniform numbers, which is several times faster than torch's Bernoulli draws."""
    if probability == 0.0 or x.device.type != "cpu":
        return functional.dropout(x, probability)
    keep = torch.rand(x.shape) >= probability
    return x * keep.to(x.dtype).mul_(1 / (1 - probability))


def drop_features(x: Tensor, probability: float) -> Tensor:
    """Dropout on raw features `(nodes, features)`; on the CPU mostly-zero ones are returned as a sparse tensor.

    Linear maps take both. A bag of words has about one non-zero in eighty, and dropout keeps zeros.
    """
    if x.device.type != "cpu" or x.requires_grad or torch.count_nonzero(x) >= SPARSE_BELOW * x.numel():
        return drop(x, probability)
    sparse = x.to_sparse()
    values = drop(sparse.values(), probability)
    return torch.sparse_coo_tensor(sparse.indices(), values, x.shape, is_coalesced=True, check_invariants=False)
