"""A graph, or several as one, and what layers need of its edges: computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops, scatter

from search_spaces.layers.attention import Attention
from search_spaces.layers.csr import Csr, starts
from search_spaces.layers.features import Shared
from search_spaces.layers.sparse_features import SparseFeatures

T = TypeVar("T")

Norm: TypeAlias = Literal["sum", "mean", "gcn", "symmetric", "unlooped"]
"""How the values of neighbours are weighted where they are added up, with `A [target, source]` the number of edges.

"sum": `A`. "mean": `D^-1 A`, zero where no edge ends. "gcn": `D^-1/2 (A + I) D^-1/2`, with a self-loop where none is
(Kipf and Welling, ICLR 2017, equation 2). "symmetric": `D^-1/2 A D^-1/2`. "unlooped": the same without self-loops, with
degrees of edges that leave a node, so that `-` it is the scaled Laplacian of Chebyshev convolutions with largest
eigenvalue 2 (Defferrard et al., NeurIPS 2016). D of the others are the edges that end at a node.
"""


SPARSE_BELOW = 0.1
"""Share of features that are not zero below which they are multiplied as a sparse matrix."""

DENSE = 10
"""How many multiplications of a dense product take the time of one of a sparse product."""


class Piece(NamedTuple):
    """What a graph is a sample of: the numbers of its nodes there, `rows [nodes]`; and of each node, where not all of
    its edges are in the sample, how many count for the weights of edges: those without self-loops that end at it and
    that leave it, and its self-loops, all `[nodes]`, integers."""

    whole: GraphBatch
    rows: Tensor
    ending: Tensor
    leaving: Tensor
    loops: Tensor


class GraphBatch(Shared):
    """`nodes` nodes with `edge_index [2, m]`, sources and targets, `edge_attr [m, k]` or None, and, of several graphs
    whose nodes follow one another, `counts [graphs]`, the nodes of each.

    Edges are sorted by target, those of one target in the order given. While a program is exported they stay as they
    are given, since it would sort them at every call, and what is computed by runs of edges or by sparse matrices is
    computed edge by edge. All else that is here is made when it is first asked for, and kept. Nothing of it is learnt.

    Of a sample of a larger graph not all edges of the outermost nodes are there: a `piece` says what it is of.
    """

    __slots__ = ("_given", "_given_attr", "_made", "counts", "features", "nodes", "piece")

    def __init__(
        self,
        edge_index: Tensor,
        nodes: int,
        edge_attr: Tensor | None = None,
        counts: Tensor | None = None,
        *,
        ascending: bool = False,
        piece: Piece | None = None,
    ) -> None:
        """With `ascending` the edges are given in the order of their targets."""
        self._given, self._given_attr = edge_index, edge_attr
        self.nodes, self.counts, self.piece = nodes, counts, piece
        self.features: Tensor | None = None  # of the nodes, where it travels with them and is met again
        self._made: dict[Hashable, Any] = {"order": None} if ascending else {}

    @staticmethod
    def of(
        edge_index: Tensor | GraphBatch, x: Tensor, edge_attr: Tensor | None = None, counts: Tensor | None = None
    ) -> GraphBatch:
        """The graph of nodes with the features `x [nodes, f]`: itself, the one that travels with the edges
        (`carrier`), or one made of these tensors."""
        if isinstance(edge_index, GraphBatch):
            return edge_index
        if isinstance(edge_index, EdgeIndex):
            found: GraphBatch | None = getattr(edge_index, "graph", None)
            if found is not None and found.nodes == x.size(0) and not torch.compiler.is_exporting():
                return found
            edge_index = edge_index.as_tensor()
        return GraphBatch(edge_index, x.size(0), edge_attr, counts)

    def carrier(self, features: Tensor | None = None) -> EdgeIndex:
        """The sorted edges as a tensor `[2, m]` that the graph travels with: `of` finds it there.

        `features [nodes, f]` are those of the nodes, which nothing is learnt of: what is computed of them alone is kept
        as well (`sparse`, `spread`). On another device, and where edges were chosen, the graph is left behind, and made
        anew.
        """
        self.features = features
        edges = EdgeIndex(self.edge_index.contiguous(), sparse_size=(self.nodes, self.nodes), sort_order="col")
        edges.graph = self
        return edges

    @property
    def tensor(self) -> Tensor:
        return self._given

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, at the first call with this key: what does not depend on weights, an encoding of nodes say."""
        if key not in self._made:
            self._made[key] = make() if self._traced else _lasting(make)
        made: T = self._made[key]
        return made

    @property
    def edge_index(self) -> Tensor:
        """Sources and targets `[2, m]`, sorted by target."""
        return self.once("edge_index", lambda: _ordered(self._given, self._order, 1))

    @property
    def edge_attr(self) -> Tensor | None:
        """Features of the edges `[m, k]`, in the order of `edge_index`; as they are given, they may be learnt."""
        return None if self._given_attr is None else _ordered(self._given_attr, self._order, 0)

    def as_given(self, values: Tensor) -> Tensor:
        """Values of edges `[m, k]` in the order of `edge_index`, in the order in which the edges were given."""
        return _ordered(values, None if self._order is None else self._order.argsort(), 0)

    @property
    def graphs(self) -> int:
        return 1 if self.counts is None else self.counts.size(0)

    @property
    def batch(self) -> Tensor:
        """The graph of each node `[nodes]`."""
        return self.once("batch", self._batch)

    @property
    def degree(self) -> Tensor:
        """How many edges end at each node `[nodes]`, integers."""
        return self.once("degree", lambda: _degree(self.edge_index[1], self.nodes))

    @property
    def starts(self) -> Tensor:
        """Where in `edge_index` the edges that end at each node begin `[nodes + 1]`; not while exporting."""
        return self.once("starts", lambda: starts(self.edge_index[1], self.nodes))

    @property
    def unlooped(self) -> Tensor:
        """The edges without self-loops, sorted by target."""
        return self.once("unlooped", lambda: remove_self_loops(self.edge_index)[0])

    @property
    def looped(self) -> Tensor:
        """The edges with one self-loop at every node, sorted by target, the self-loop last."""
        return self.once("looped", lambda: self._sorted(add_self_loops(self.unlooped, num_nodes=self.nodes)[0])[0])

    def normalised(
        self, dtype: torch.dtype, degrees: str = "source_to_target", loops: str = "kept"
    ) -> tuple[Tensor, Tensor]:
        """Edges and the weight `D^-1/2 A D^-1/2` of each; self-loops are "kept", "added" where missing, or "removed".

        `degrees` count the edges into ("source_to_target") or out of ("target_to_source") a node, which differ on
        directed graphs only.
        """
        piece = self.piece
        if piece is not None:
            return self.once((dtype, degrees, loops), lambda: self._weighted_by(piece, dtype, degrees, loops))
        edges, added = self.unlooped if loops == "removed" else self.edge_index, loops == "added"

        def make() -> tuple[Tensor, Tensor]:
            near, weight = gcn_norm(edges, None, self.nodes, add_self_loops=added, flow=degrees, dtype=dtype)
            if added:
                near, weight = self._sorted(near, weight)
            return near, weight

        return self.once((dtype, degrees, loops), make)

    def _weighted_by(self, piece: Piece, dtype: torch.dtype, degrees: str, loops: str) -> tuple[Tensor, Tensor]:
        """`normalised` with degrees that are known."""
        edges = {"added": self.looped, "kept": self.edge_index, "removed": self.unlooped}[loops]
        count = piece.ending if degrees == "source_to_target" else piece.leaving
        if loops != "removed":
            count = count + (1 if loops == "added" else piece.loops)
        scale = count.to(dtype).rsqrt()
        scale = scale.masked_fill(count == 0, 0.0)
        return edges, scale[edges[0]] * scale[edges[1]]

    @property
    def looped_degree(self) -> Tensor:
        """How many of the edges with one self-loop at every node (`looped`) end at each node `[nodes]`, integers."""
        if self.piece is not None:
            return self.piece.ending + 1
        return self.once("looped degree", lambda: _degree(self.looped[1], self.nodes))

    def _weighted(self, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Edges sorted by target, and the weight of each that `norm` names; None: they are added up, or their mean."""
        if norm == "gcn":
            return self.normalised(dtype, loops="added")
        if norm == "symmetric":
            return self.normalised(dtype)
        if norm == "unlooped":
            return self.normalised(dtype, "target_to_source", "removed")
        return self.edge_index, None

    def csr(self, norm: Norm, dtype: torch.dtype = torch.float32) -> Csr:
        """The matrix `[nodes, nodes]` that `norm` names, its transpose known; not while exporting."""

        def make() -> Csr:
            (source, target), values = self._weighted(norm, dtype)
            if norm == "mean":
                values = self.degree.to(dtype).reciprocal()[target]
            elif values is None:
                values = torch.ones_like(target, dtype=dtype)
            return Csr.of(target, source, values, (self.nodes, self.nodes))

        return self.once(("csr", norm, dtype), make)

    def propagate(self, x: Tensor, norm: Norm) -> Tensor:
        """For every node the weighted sum over its neighbours: the matrix that `norm` names times `x [nodes, f]`."""
        if self.by_edges:
            edges, weight = self._weighted(norm, x.dtype)
            return scatter(
                self.message(x, edges[0], weight), edges[1], 0, self.nodes, "mean" if norm == "mean" else "sum"
            )
        return self.csr(norm, _wide(x.dtype)) @ x

    def attention(self, heads: int, dtype: torch.dtype, *, looped: bool) -> Attention:
        """How nodes attend to their neighbours, and with `looped` to themselves; not while exporting."""
        wide = _wide(dtype)

        def make() -> Attention:
            return Attention(self.looped if looped else self.edge_index, self.nodes, heads, wide)

        return self.once(("attention", heads, wide, looped), make)

    def message(self, x: Tensor, source: Tensor, weight: Tensor | None) -> Tensor:
        """What is sent along each edge `[m, f]` where edges are gone through one by one."""
        sent = x.index_select(0, source)
        return sent if weight is None else weight.view(-1, 1) * sent

    def sparse(self, x: Tensor) -> Csr | None:
        """Features `x [nodes, f]` as a sparse matrix, where that pays: on the CPU, with few that are not zero, and
        nothing learnt of them. Those that travel with the graph are looked at once."""
        if self._traced or x.requires_grad or x.device.type != "cpu":
            return None
        version = x._version
        if x is self.features:
            return self.once(("sparse", version), lambda: _sparse(x))
        return _lasting(lambda: _sparse(x))

    def light(self, x: Tensor) -> Tensor:
        """`x [nodes, f]` as a sparse matrix (`SparseFeatures`), where that pays. Without gradients it costs more to
        find the zeros than it saves once: then only features that travel with the graph are."""
        found = self.sparse(x) if torch.is_grad_enabled() or x is self.features else None
        return x if found is None else SparseFeatures(found)

    def spread(self, x: Tensor, norm: Norm, steps: int) -> Tensor | None:
        """`x [nodes, f]` propagated `steps` times: made once, before there are weights, where `x` are the features that
        travel with the graph and nothing was dropped of them. None for others, and where a product with what comes out,
        which has fewer zeros, costs more than to propagate in every pass."""
        features = self.features
        if features is None or self.by_edges:
            return None
        if not (x is features or (isinstance(x, SparseFeatures) and x.csr is self.sparse(features))):
            return None
        return self.once(("spread", norm, steps, features._version), lambda: self._spread(features, norm, steps))

    def _spread(self, x: Tensor, norm: Norm, steps: int) -> Tensor | None:
        found = x
        for _ in range(steps):
            found = self.propagate(found, norm)
        sparse = self.sparse(x), _sparse(found) if x.device.type == "cpu" else None
        before, after = (x.numel() / DENSE if csr is None else csr.entries for csr in sparse)
        if after >= before + steps * self.csr(norm, _wide(x.dtype)).entries:
            return None
        return found if sparse[1] is None else SparseFeatures(sparse[1])

    def hops(self, k: int) -> Tensor:
        """The pairs `[2, p]` of a node and one that a shortest path of `k >= 1` edges leads to, sorted by the latter,
        then by the former. As many as there are: on a dense graph all pairs of nodes."""
        return self.once(("hops", k), lambda: self._hops(k))

    def _hops(self, k: int) -> Tensor:
        nodes, device = self.nodes, self.edge_index.device
        first = self.edge_index[0].argsort(stable=True)
        source, target = self.edge_index[:, first]
        begins = starts(source, nodes)
        start = torch.arange(nodes, device=device)
        pairs = seen = start * nodes + start  # target * nodes + source
        for _ in range(k):
            begin, at = pairs % nodes, pairs // nodes
            many = begins[at + 1] - begins[at]
            ends = many.cumsum(0)
            edge = torch.arange(int(many.sum()), device=device) + (begins[at] - ends + many).repeat_interleave(many)
            pairs = (target[edge] * nodes + begin.repeat_interleave(many)).unique()
            pairs = pairs[~torch.isin(pairs, seen)]
            seen = torch.cat([seen, pairs])
        return torch.stack([pairs % nodes, pairs // nodes])

    @property
    def _order(self) -> Tensor | None:
        """The places of the sorted edges among those given; None: they are sorted, or need not be."""
        return None if self._traced else self.once("order", lambda: _order(self._given[1]))

    @property
    def _traced(self) -> bool:
        """Whether a program is exported, or source written: then the edges may be no tensor at all."""
        return torch.compiler.is_exporting() or not isinstance(self._given, Tensor)

    @property
    def by_edges(self) -> bool:
        """Whether what is sent is to be computed edge by edge: in programs, and where tensors have no values."""
        return self._traced or self._given.is_meta

    def _sorted(self, edges: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Edges sorted by target, and values of each."""
        if self._traced:
            return edges, *values
        order = _order(edges[1])
        return edges[:, order], *(value[order] for value in values)

    def _batch(self) -> Tensor:
        if self.counts is None:
            return torch.zeros(self.nodes, dtype=torch.long, device=self._given.device)
        if torch.compiler.is_exporting():  # ONNX knows no repeat_interleave
            node = torch.arange(self.nodes, device=self.counts.device)
            return (node[:, None] >= self.counts.cumsum(0)).sum(1)
        graph = torch.arange(self.graphs, device=self.counts.device)
        return graph.repeat_interleave(self.counts, output_size=self.nodes)


def _order(target: Tensor) -> Tensor:
    return target.argsort(stable=True)


def _ordered(x: Tensor, order: Tensor | None, dim: int) -> Tensor:
    return x if order is None else x.index_select(dim, order)


def _lasting(make: Callable[[], T]) -> T:
    """What is made in a pass for inference serves a training, too."""
    with torch.inference_mode(False), torch.no_grad():
        return make()


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What products are added up in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _sparse(x: Tensor) -> Csr | None:
    if torch.count_nonzero(x) >= SPARSE_BELOW * x.numel():
        return None
    row, column = x.nonzero(as_tuple=True)
    return Csr.of(row, column, x[row, column], (x.size(0), x.size(1)))


def _degree(target: Tensor, nodes: int) -> Tensor:
    return scatter(torch.ones_like(target), target, dim_size=nodes, reduce="sum")
