"""Graph layers and the networks made of them, on PyTorch Geometric message passing.

Graph convolutions are linear in their input up to the aggregation, so projecting first and sending the
narrow result is the same function as aggregating first; with bag-of-words features it moves 1433 / 64
times less data. PyTorch Geometric's GCN and GAT do so themselves and are used as they are; the layers
here do it for the others. Nothing about a graph is remembered between calls; within one, what its layers
need of its edges is computed once (`Links`).

One file, until layers of graphs are shared by spaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import add_self_loops, remove_self_loops

from nas_core.choice import Value
from nas_core.relax import Picker, Style
from search_spaces.layers.features import Shared, total
from search_spaces.supernet.supernet import copy_weights

SPARSE_BELOW = 0.1
"""Share of non-zero raw features below which training multiplies them as a sparse matrix."""

SKIP = "skip"


class Links(Shared):
    """The edges `[2, e]` among `nodes` in one pass, and what several layers need of them: made at the first call."""

    __slots__ = ("_made", "edges", "nodes")

    def __init__(self, edges: Tensor, nodes: int) -> None:
        self.edges, self.nodes = edges, nodes
        self._made: dict[Hashable, Any] = {}

    @staticmethod
    def of(edges: Tensor | Links, x: Tensor) -> Links:
        """The edges among the nodes that have the features `x`."""
        return edges if isinstance(edges, Links) else Links(edges, x.size(0))

    @property
    def tensor(self) -> Tensor:
        return self.edges

    @property
    def unlooped(self) -> Tensor:
        """The edges without self-loops."""
        return self._once("unlooped", lambda: remove_self_loops(self.edges)[0])

    @property
    def looped(self) -> Tensor:
        """The edges with one self-loop at every node, last."""
        return self._once("looped", lambda: add_self_loops(self.unlooped, num_nodes=self.nodes)[0])

    def normalised(
        self, dtype: torch.dtype, degrees: str = "source_to_target", loops: str = "kept"
    ) -> tuple[Tensor, Tensor]:
        """Edges and the weight `D^-1/2 A D^-1/2` of each; self-loops are "kept", "added" where missing, or "removed".

        `degrees` count the edges into ("source_to_target") or out of ("target_to_source") a node, which differ on
        directed graphs only.
        """
        edges = self.unlooped if loops == "removed" else self.edges
        return self._once(
            (dtype, degrees, loops),
            lambda: gcn_norm(edges, None, self.nodes, add_self_loops=loops == "added", flow=degrees, dtype=dtype),
        )

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Convolution(GCNConv):
    """GCN (Kipf and Welling 2017): `D^-1/2 (A + I) D^-1/2 X W + b`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, normalize=False)  # the weights of the edges are given

    def plain(self) -> nn.Module:
        return GCNConv(self.in_channels, self.out_channels)

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        return super().forward(x, *Links.of(edges, x).normalised(x.dtype, loops="added"))


class Attention(GATConv):
    """GAT with two heads of half the width (Velickovic et al. 2018); every node attends to itself as well."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden // 2, heads=2, add_self_loops=False)  # the self-loops are given

    def plain(self) -> nn.Module:
        return GATConv(self.in_channels, self.out_channels, self.heads)

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        return super().forward(x, Links.of(edges, x).looped)


class Aggregate(MessagePassing):
    """`AGG_j (W x_j) + V x_i + b` over the in-neighbours j of node i.

    GraphSAGE with "mean" (Hamilton et al. 2017), the k-GNN with "sum" and k = 1 (Morris et al. 2019).
    `(nodes, width), (2, edges)` to `(nodes, hidden)`.
    """

    def __init__(self, width: int, hidden: int, aggregation: str) -> None:
        super().__init__(aggr=aggregation)
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        return self.propagate(Links.of(edges, x).edges, x=self.neighbours(x)) + self.itself(x) + self.bias


class Isomorphism(MessagePassing):
    """GIN with one linear map and epsilon 0 (Xu et al. 2019, eq. 4.1): `W (x_i + sum_j x_j) + b`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(aggr="sum")
        self.linear = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        projected = self.linear(x)
        return projected + self.propagate(Links.of(edges, x).edges, x=projected) + self.bias


class Normalised(MessagePassing):
    """`V x_i + W sum_j a_ij x_j + b` with `a = D^-1/2 A D^-1/2`; what Chebyshev and ARMA layers share."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(aggr="sum")
        self.neighbours = nn.Linear(width, hidden, bias=False)
        self.itself = nn.Linear(width, hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        glorot(self.neighbours.weight)
        glorot(self.itself.weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.view(-1, 1) * x_j


class Chebyshev(Normalised):
    """Chebyshev convolution of order K = 2 with largest eigenvalue 2 (Defferrard et al. 2016): the scaled
    Laplacian is `-D^-1/2 A D^-1/2`, without self-loops."""

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        projected = self.neighbours(x)
        links, weight = Links.of(edges, x).normalised(projected.dtype, "target_to_source", loops="removed")
        return self.itself(x) - self.propagate(links, x=projected, weight=weight) + self.bias


class Arma(Normalised):
    """ARMA convolution with one stack and one layer (Bianchi et al. 2021): `relu(a X W + X V + b)`.

    `recurrent` holds the weights of further layers. With one layer it takes no part; the benchmark's
    networks own it, and its parameter counts include it.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.recurrent = nn.Parameter(torch.empty(hidden, hidden))
        glorot(self.recurrent)

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        projected = self.neighbours(x)
        links, weight = Links.of(edges, x).normalised(projected.dtype)
        return functional.relu(self.propagate(links, x=projected, weight=weight) + self.itself(x) + self.bias)


class Dense(nn.Linear):
    """A linear map of every node by itself."""

    def plain(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features)

    def forward(self, x: Tensor, edges: Tensor | Links | None = None) -> Tensor:
        return super().forward(x)


class Skip(nn.Module):
    """What it gets."""

    skip = True

    def forward(self, x: Tensor, edges: Tensor | Links | None = None) -> Tensor:
        return x


class Silent(nn.Module):
    """Nothing: a skip of the raw features, which the network itself passes on."""

    skip = True

    def forward(self, x: Tensor, edges: Tensor | Links) -> None:
        return None


class Normed(nn.Module):
    """A layer, then batch normalisation without affine part: in a mixture of layers, whose sums and means over
    neighbours are of different sizes, the mixing weight alone is a layer's share."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(hidden, affine=False)

    def forward(self, x: Tensor, edges: Tensor | Links) -> Tensor:
        normed: Tensor = self.norm(self.layer(x, edges))
        return normed


LAYERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "gat": Attention,
    "gcn": Convolution,
    "gin": Isomorphism,
    "cheb": Chebyshev,
    "sage": partial(Aggregate, aggregation="mean"),
    "arma": Arma,
    "graph": partial(Aggregate, aggregation="sum"),
    "fc": Dense,
    SKIP: lambda width, hidden: Skip(),
}


def operation(name: str, width: int, hidden: int) -> nn.Module:
    """The layer of an operation from `width` to `hidden` features; fc and skip need no edges.

    Raises ValueError for an unknown name.
    """
    if name not in LAYERS:
        raise ValueError(f"'{name}' is no graph operation")
    return LAYERS[name](width, hidden)


class SlicedJoin(nn.Module):
    """The linear map of any leaves `{node: [n, hidden]}`: a slice of its weights for every node that can be one."""

    def __init__(self, leaves: Sequence[int], hidden: int) -> None:
        super().__init__()
        whole = nn.Linear(hidden * len(leaves), hidden)
        slices = whole.weight.detach().split(hidden, dim=1)
        self.slices = nn.ParameterDict(
            {str(leaf): nn.Parameter(part.clone()) for leaf, part in zip(leaves, slices, strict=True)}
        )
        self.bias = whole.bias

    def forward(self, leaves: Mapping[int, Tensor], nodes: int) -> Tensor:
        joined = self.bias.expand(nodes, -1)
        for node, state in leaves.items():
            joined = joined + functional.linear(state, self.slices[str(node)])
        return joined

    def extract_into(self, target: nn.Linear, leaves: Iterable[int]) -> None:
        """Copy the weights of these leaves."""
        target.weight.copy_(torch.cat([self.slices[str(leaf)] for leaf in leaves], dim=1))
        target.bias.copy_(self.bias)


Weight: TypeAlias = float | Tensor
"""A share between 0 and 1: 1.0 stands for "in full", which costs nothing."""


class NodeNetwork(nn.Module):
    """A network of computing nodes, each reading one earlier node (NAS-Bench-Graph, Qin et al. 2022, section 3); those
    that nobody reads are concatenated and classified: `(nodes, features), (2, edges)` to `(nodes, classes)`.

    `groups`: the topologies, then the operations of every node. A topology names the input of each node; 0 is the raw
    features, after dropout. A node that reads hidden features applies batch normalisation, ReLU and dropout to them,
    then its operation. A skip of the raw features passes them on. The nodes that nobody reads are concatenated, then
    ReLU, a linear map to `hidden` and one to `classes` with nothing between them, as the benchmark has it for Cora and
    CiteSeer. Raw features that are not read add nothing there.

    Every node owns a batch normalisation; those of nodes that read raw features have no use, but count.
    `(nodes, features), (2, edges)` to `(nodes, classes)`.

    Where topologies are mixed, so are what a node reads and what is classified: a node gets a share of the raw
    features, to which it applies operations of their width, and the weighted sum of the hidden features, to which it
    applies, in the share that is left, operations of the hidden width. A skip passes its share of raw features on.
    Both kinds of operations exist where both can be needed, and run where they are.
    """

    def __init__(
        self,
        picker: Picker,
        groups: Mapping[str, Sequence[Value]],
        features: int,
        classes: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        topology, *names = groups
        self.topology = picker.route(topology, groups[topology])
        self.drop_features = FeatureDropout(dropout, sparse=len(self.topology.options) > 1)
        self.drop = Dropout(dropout)
        self.routes = [picker.route(name, groups[name]) for name in names]
        self.operations = nn.ModuleList()
        links = [_links(text) for text in self.topology.options]
        raw, mixed = {0}, set[int]()
        for node, name in enumerate(names, start=1):
            inputs = {link[node - 1] for link in links}
            others = set(self.routes[node - 1].options) - {SKIP}
            kinds = [kind for kind, nodes in (("raw", raw), ("hidden", mixed)) if inputs & nodes]
            if "raw" in kinds and SKIP in self.routes[node - 1].options:
                raw.add(node)
            if "hidden" in kinds or others:
                mixed.add(node)
            layers = {
                kind: picker.module(
                    name,
                    {
                        option: partial(_candidate, str(option), kind, features, hidden, picker.style == Style.SUPERNET)
                        for option in groups[name]
                    },
                )
                for kind in kinds
            }
            self.operations.append(nn.ModuleDict(layers) if len(layers) > 1 else layers[kinds[0]])
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden, affine=picker.style == Style.STANDALONE) for _ in names)
        leaves = sorted({leaf for link in links for leaf in _leaves(link)})
        self.join = nn.Linear(hidden * len(leaves), hidden) if len(links) == 1 else SlicedJoin(leaves, hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edges = Links(edge_index, x.size(0))
        features = self.drop_features(x)
        reads, gates = self._wiring()
        raw: dict[int, Weight] = {0: 1.0}
        states: dict[int, Tensor] = {}
        for node, (inputs, route) in enumerate(zip(reads, self.routes, strict=True), start=1):
            taken = dict(route.selected())
            shares = [_times(weight, raw[source]) for source, weight in inputs.items() if source in raw]
            mixed = {source: weight for source, weight in inputs.items() if source in states}
            terms = []
            if shares:
                share = sum(shares[1:], shares[0])
                if taken.keys() - {SKIP}:
                    terms.append(_scaled(self._layer(node, "raw")(features, edges), share))
                if SKIP in taken:
                    raw[node] = _times(share, _share(taken[SKIP]))
            if mixed:
                state = total(_scaled(states[source], weight) for source, weight in mixed.items())
                state = self.drop(functional.relu(self.norms[node - 1](state)))
                rests = [_times(weight, 1.0 - raw.get(source, 0.0)) for source, weight in mixed.items()]
                terms.append(_scaled(self._layer(node, "hidden")(state, edges), sum(rests[1:], rests[0])))
            if terms:
                states[node] = terms[0] + terms[1] if len(terms) > 1 else terms[0]
        leaves = {node: _scaled(functional.relu(states[node]), gates[node]) for node in sorted(gates) if node in states}
        if isinstance(self.join, SlicedJoin):
            joined = self.join(leaves, edges.nodes)
        else:
            joined = self.join(torch.cat(list(leaves.values()), dim=1))
        scalar = self.topology.scalar()
        return self.classify(joined if scalar is None else joined + scalar)

    def extract_into(self, target: NodeNetwork) -> None:
        """Copy the weights of the architecture that is taken to a network of it alone."""
        [(topology, _)] = self.topology.selected()
        raw = {0}
        for node, link in enumerate(_links(topology), start=1):
            copy_weights(self._layer(node, "raw" if link in raw else "hidden"), target.operations[node - 1])
            if link in raw and [option for option, _ in self.routes[node - 1].selected()] == [SKIP]:
                raw.add(node)
        copy_weights(self.norms, target.norms)
        self.join.extract_into(target.join, _leaves(_links(topology)))
        copy_weights(self.classify, target.classify)

    def _layer(self, node: int, kind: str) -> nn.Module:
        layer = self.operations[node - 1]
        return layer[kind] if isinstance(layer, nn.ModuleDict) else layer

    def _wiring(self) -> tuple[list[dict[int, Weight]], dict[int, Weight]]:
        """In which share every node reads every earlier node, and in which share a node is a leaf."""
        reads: list[dict[int, Weight]] = [{} for _ in self.routes]
        gates: dict[int, Weight] = {}
        for topology, weight in self.topology.selected():
            links = _links(topology)
            for shares, node in (*zip(reads, links, strict=True), *((gates, leaf) for leaf in _leaves(links))):
                shares[node] = shares[node] + _share(weight) if node in shares else _share(weight)
        return reads, gates


def _candidate(name: str, kind: str, features: int, hidden: int, normed: bool) -> nn.Module:
    if name == SKIP:
        return Silent() if kind == "raw" else Skip()
    layer = operation(name, features if kind == "raw" else hidden, hidden)
    return Normed(layer, hidden) if normed else layer


def _links(topology: Value) -> tuple[int, ...]:
    return tuple(int(digit) for digit in str(topology))


def _leaves(links: Sequence[int]) -> list[int]:
    return [node for node in range(1, len(links) + 1) if node not in links]


def _share(weight: Tensor | None) -> Weight:
    return 1.0 if weight is None else weight


def _times(one: Weight, other: Weight) -> Weight:
    return other if isinstance(one, float) and one == 1.0 else _scaled(one, other)


def _scaled(x: Any, share: Weight) -> Any:
    return x if isinstance(share, float) and share == 1.0 else share * x


class Dropout(nn.Dropout):
    """`nn.Dropout`, faster on the CPU."""

    def plain(self) -> nn.Module:
        return nn.Dropout(self.p)

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p if self.training else 0.0)


class FeatureDropout(nn.Dropout):
    """Dropout of raw features. In training mostly-zero ones become a sparse tensor; with `sparse` in evaluation too:
    where many layers read them, finding out that they are sparse pays without dropout."""

    def __init__(self, p: float, sparse: bool) -> None:
        super().__init__(p)
        self.sparse = sparse

    def plain(self) -> nn.Module:
        return nn.Dropout(self.p)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return drop_features(x, self.p)
        return drop_features(x, 0.0) if self.sparse else x


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
    indices, values = sparse.indices(), drop(sparse.values(), probability)
    if probability > 0.0:  # what is dropped would only be added as zero
        kept = values.nonzero().squeeze(1)
        indices, values = indices[:, kept], values[kept]
    return torch.sparse_coo_tensor(indices, values, x.shape, is_coalesced=True, check_invariants=False)
