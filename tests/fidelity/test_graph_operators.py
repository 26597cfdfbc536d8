"""Graph operators against layers of PyTorch Geometric with the same weights, and against dense matrices."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.data import Data
from torch_geometric.nn import aggr
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE

from nas_core.errors import UsageError
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import AGGREGATOR, ENCODING, GRAPH, HEAD, READOUT, REWIRING
from search_spaces.operators.graph.aggregator.lcm import LearnedMonoid

NODES, WIDTH, HIDDEN, EDGE_DIM = 9, 6, 4, 3
CLOSE = 1e-5


@pytest.fixture
def graph() -> tuple[Tensor, Tensor, Tensor]:
    """A directed graph with a loop, a repeated edge and an isolated node."""
    torch.manual_seed(0)
    edges = torch.randint(NODES - 1, (2, 24))
    edges = torch.cat([edges, torch.tensor([[2, 4, 4], [2, 5, 5]])], 1)
    return torch.randn(NODES, WIDTH), edges, torch.randn(edges.size(1), EDGE_DIM)


def of(name: str, width: int = WIDTH, hidden: int = HIDDEN, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    return GRAPH.operator(name).make(width, hidden, **options)


def assert_same(one: nn.Module, other: nn.Module, x: Tensor, *further: Any) -> None:
    """Values, and the gradients of features and of weights, which have the same names."""
    results = []
    for module in (one, other):
        given = x.clone().requires_grad_()
        module.zero_grad()
        answer = module(given, *further)
        (answer * torch.linspace(-1, 1, answer.numel()).view_as(answer)).sum().backward()
        results.append((answer, given.grad, {name: each.grad for name, each in module.named_parameters()}))
    (values, slope, weights), (values_, slope_, weights_) = results
    torch.testing.assert_close(values, values_, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(slope, slope_, atol=CLOSE, rtol=CLOSE)
    assert weights.keys() == weights_.keys()
    for name, gradient in weights.items():
        torch.testing.assert_close(gradient, weights_[name], atol=CLOSE, rtol=CLOSE)


def renamed(module: nn.Module, names: dict[str, str], source: nn.Module) -> nn.Module:
    """The module with weights of `source`, whose names it has others for."""
    taken = source.state_dict()
    module.load_state_dict({name: taken[names.get(name, name)] for name in module.state_dict()})
    return module


LAYERS = {
    "gat": (lambda: pyg.GATConv(WIDTH, HIDDEN // 2, heads=2), False),
    "gat(heads=4)": (lambda: pyg.GATConv(WIDTH, HIDDEN // 4, heads=4), False),
    "gat(heads=3, concat=False)": (lambda: pyg.GATConv(WIDTH, HIDDEN, heads=3, concat=False), False),
    "gcn": (lambda: pyg.GCNConv(WIDTH, HIDDEN), False),
    "gatv2": (lambda: pyg.GATv2Conv(WIDTH, HIDDEN // 2, heads=2), False),
    "gatv2 ": (lambda: pyg.GATv2Conv(WIDTH, HIDDEN // 2, heads=2, edge_dim=EDGE_DIM), True),
    "sgc": (lambda: pyg.SGConv(WIDTH, HIDDEN, K=2), False),
    "sgc(steps=3)": (lambda: pyg.SGConv(WIDTH, HIDDEN, K=3), False),
    "transformer": (lambda: pyg.TransformerConv(WIDTH, HIDDEN // 2, heads=2), False),
    "transformer ": (lambda: pyg.TransformerConv(WIDTH, HIDDEN // 2, heads=2, edge_dim=EDGE_DIM), True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_the_library_with_the_same_weights(name: str, graph: tuple[Tensor, Tensor, Tensor]) -> None:
    make, with_edges = LAYERS[name]
    x, edges, e = graph
    operator, layer = of(name, **({"edge_dim": EDGE_DIM} if with_edges else {})), make()
    layer.load_state_dict(operator.state_dict())
    assert_same(operator, layer, x, edges, *([e] if with_edges else []))


@pytest.mark.parametrize("with_edges", [False, True])
def test_pna(with_edges: bool, graph: tuple[Tensor, Tensor, Tensor]) -> None:
    """With a histogram all of whose nodes have the mean degree."""
    x, edges, e = graph
    edge_dim = EDGE_DIM if with_edges else None
    degrees = torch.tensor([0, 0, 0, 5])
    layer = pyg.PNAConv(
        WIDTH, HIDDEN, ["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"], degrees, edge_dim
    )
    operator = of("pna", degree=3.0, edge_dim=edge_dim)
    layer.load_state_dict(operator.state_dict())
    assert_same(operator, layer, x, edges, *([e] if with_edges else []))


def test_gine(graph: tuple[Tensor, Tensor, Tensor]) -> None:
    x, edges, e = graph
    operator = of("gine", edge_dim=EDGE_DIM)
    mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))
    layer = pyg.GINEConv(mlp, train_eps=True, edge_dim=EDGE_DIM)
    names = {"lin.weight": "edges.weight", "lin.bias": "edges.bias"}
    names |= {f"nn.{part}": f"mlp.{part}" for part in mlp.state_dict()}
    renamed(layer, names, operator)
    torch.testing.assert_close(operator(x, edges, e), layer(x, edges, e), atol=CLOSE, rtol=CLOSE)


def test_appnp(graph: tuple[Tensor, Tensor, Tensor]) -> None:
    x, edges, _ = graph

    class Reference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.rank = nn.Linear(WIDTH, HIDDEN), pyg.APPNP(K=10, alpha=0.1)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.rank(self.linear(x), edges)

    operator, reference = of("appnp"), Reference()
    reference.load_state_dict(operator.state_dict())
    assert_same(operator, reference, x, edges)


def test_gcn2(graph: tuple[Tensor, Tensor, Tensor]) -> None:
    x, edges, _ = graph

    class Reference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, HIDDEN)
            self.layers = nn.ModuleList(pyg.GCN2Conv(HIDDEN, 0.1, 0.5, number) for number in (1, 2, 3, 4))

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            state = begun = self.linear(x).relu()
            for layer in self.layers:
                state = layer(state, begun, edges)
                state = state if layer is self.layers[-1] else state.relu()
            return state

    operator = of("gcn2")
    reference = renamed(Reference(), {f"layers.{n}.weight1": f"layers.{n}.weight" for n in range(4)}, operator)
    for layer in reference.layers:
        layer.weight1.data = layer.weight1.data.t()
    torch.testing.assert_close(operator(x, edges), reference(x, edges), atol=CLOSE, rtol=CLOSE)


def dense(edges: Tensor) -> Tensor:
    """`A[target, source]`, the number of edges."""
    matrix = torch.zeros(NODES, NODES)
    matrix.index_put_((edges[1], edges[0]), torch.ones(edges.size(1)), accumulate=True)
    return matrix


def test_sage_gin_and_graph_are_products_of_matrices(graph: tuple[Tensor, Tensor, Tensor]) -> None:
    x, edges, _ = graph
    adjacency = dense(edges)
    mean = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    for name, matrix in (("sage", mean), ("graph", adjacency)):
        operator = of(name)
        wanted = matrix @ x @ operator.neighbours.weight.t() + x @ operator.itself.weight.t() + operator.bias
        torch.testing.assert_close(operator(x, edges), wanted, atol=CLOSE, rtol=CLOSE)
    gin = of("gin")
    wanted = (x + adjacency @ x) @ gin.linear.weight.t() + gin.bias
    torch.testing.assert_close(gin(x, edges), wanted, atol=CLOSE, rtol=CLOSE)


AGGREGATIONS = {
    "sum": aggr.SumAggregation,
    "mean": aggr.MeanAggregation,
    "max": aggr.MaxAggregation,
    "std": aggr.StdAggregation,
    "softmax": lambda: aggr.SoftmaxAggregation(learn=True),
}


class Fixed(nn.Module):
    """An aggregation of values into five places, the last of which is empty."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor, index: Tensor) -> Tensor:
        if isinstance(self.inner, aggr.Aggregation):
            return self.inner(values, index, dim_size=5)
        return self.inner(values, index, 5)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregators_of_the_library(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = AGGREGATOR.operator(name).make(WIDTH), AGGREGATIONS[name]()
    assert_same(Fixed(ours), Fixed(theirs), torch.randn(10, WIDTH), torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 3, 3]))


def test_deviations_of_values_far_from_zero() -> None:
    """Where the mean of squares less the square of the mean has nothing left in float32."""
    values = torch.tensor([[1000.0], [1000.1], [1000.2]])
    found = AGGREGATOR.operator("std").make(1)(values, torch.zeros(3, dtype=torch.long), 1)
    torch.testing.assert_close(found, values.double().std(0, correction=0).float()[None], atol=1e-4, rtol=1e-3)


def lcm() -> tuple[LearnedMonoid, aggr.LCMAggregation]:
    torch.manual_seed(0)
    ours, theirs = AGGREGATOR.operator("lcm").make(WIDTH), aggr.LCMAggregation(WIDTH, WIDTH)
    names = {f"lin.{part}": f"project.{part}" for part in ("weight", "bias")}
    names |= {name: name.replace("gru_cell", "combine") for name in theirs.state_dict() if "gru" in name}
    return ours, renamed(theirs, names, ours)


@pytest.mark.parametrize("each", [1, 2, 5, 8])
def test_lcm_is_the_librarys_where_all_have_as_many_values(each: int) -> None:
    ours, theirs = lcm()
    values, index = torch.randn(3 * each, WIDTH), torch.arange(3).repeat_interleave(each)
    torch.testing.assert_close(ours(values, index, 3), theirs(values, index, dim_size=3), atol=CLOSE, rtol=CLOSE)


def test_lcm_commutes_but_does_not_associate() -> None:
    ours, theirs = lcm()
    values, index = torch.randn(5, WIDTH), torch.zeros(5, dtype=torch.long)
    one = ours(values, index, 1)
    torch.testing.assert_close(ours(values[[1, 0, 2, 3, 4]], index, 1), one)  # the two of one node of the tree
    torch.testing.assert_close(ours(values[[2, 3, 0, 1, 4]], index, 1), one)  # two nodes of it
    reordered = torch.stack([ours(values[list(order)], index, 1) - one for order in permutations(range(5))])
    assert 0.4 < float((reordered.norm(dim=2).mean() / one.norm()).detach()) < 0.6  # untrained, by half of its size
    # Others with more values change nothing; in the library, which fills up with zeros, they do.
    more, both = torch.randn(9, WIDTH), torch.tensor([0] * 5 + [1] * 9)
    torch.testing.assert_close(ours(torch.cat([values, more]), both, 2)[:1], one)
    assert not torch.allclose(theirs(torch.cat([values, more]), both, dim_size=2)[:1], one, atol=1e-3)
    with pytest.raises(ValueError, match="not sorted"):
        ours(values, torch.tensor([0, 1, 0, 1, 1]), 2)


def cycle_with_tail() -> Tensor:
    """Edges of an undirected graph of seven nodes with seven different eigenvalues."""
    pairs = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1], [1, 2, 3, 0, 0, 4, 6, 6]])
    return torch.cat([pairs, pairs.flip(0)], 1)


def test_laplacian_encodings_are_eigenvectors() -> None:
    edges = cycle_with_tail()
    found = ENCODING.operator("laplacian(features=4)").make()(GraphBatch(edges, 7))
    adjacency = torch.zeros(7, 7)
    adjacency[edges[0], edges[1]] = 1.0
    scale = adjacency.sum(1).rsqrt()
    laplacian = torch.eye(7) - scale[:, None] * adjacency * scale
    values = torch.linalg.eigvalsh(laplacian)
    torch.testing.assert_close(laplacian @ found, found * values[1:5], atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(found.t() @ found, torch.eye(4), atol=CLOSE, rtol=CLOSE)
    data = AddLaplacianEigenvectorPE(4, attr_name="pe", is_undirected=True)(Data(edge_index=edges, num_nodes=7))
    torch.testing.assert_close(found.abs(), data.pe.abs(), atol=1e-4, rtol=1e-4)
    order = torch.tensor([3, 5, 0, 6, 1, 4, 2])
    again = ENCODING.operator("laplacian(features=4)").make()(GraphBatch(order.argsort()[edges], 7))
    torch.testing.assert_close(again.abs(), found[order].abs(), atol=1e-4, rtol=1e-4)


def test_random_walks_are_the_librarys() -> None:
    edges = cycle_with_tail()
    found = ENCODING.operator("random-walk(features=5)").make()(GraphBatch(edges, 7))
    data = AddRandomWalkPE(5, attr_name="pe")(Data(edge_index=edges, num_nodes=7))
    torch.testing.assert_close(found, data.pe, atol=CLOSE, rtol=CLOSE)
    two = torch.cat([edges, edges + 7], 1)
    both = ENCODING.operator("random-walk(features=5)").make()(GraphBatch(two, 14, counts=torch.tensor([7, 7])))
    torch.testing.assert_close(both, torch.cat([found, found]), atol=CLOSE, rtol=CLOSE)


def test_random_features_are_drawn_anew() -> None:
    encoding, graph = ENCODING.operator("random(features=50)").make(), GraphBatch(cycle_with_tail(), 7)
    torch.manual_seed(3)
    one, two = encoding(graph), encoding(graph)
    assert not torch.equal(one, two)
    torch.manual_seed(3)
    assert torch.equal(encoding(graph), one)
    assert abs(float(one.mean())) < 0.2
    assert 0.85 < float(one.std()) < 1.15


def test_a_virtual_node_per_graph() -> None:
    edges = torch.tensor([[0, 1, 3], [1, 0, 4]])
    graph = GraphBatch(edges, 5, torch.ones(3, 2), torch.tensor([3, 2]))
    x = torch.arange(10.0).view(5, 2) + 1
    more, other, places = REWIRING.operator("virtual-node").make()(x, graph)
    assert places.tolist() == [0, 1, 2, 4, 5]
    assert other.counts is not None
    assert other.counts.tolist() == [4, 3]
    torch.testing.assert_close(more[places], x)
    assert more[[3, 6]].abs().sum() == 0
    links = {tuple(pair) for pair in other.edge_index.t().tolist()}
    hubs = {(0, 3), (1, 3), (2, 3), (4, 6), (5, 6)}
    assert links == {(0, 1), (1, 0), (4, 5)} | hubs | {(b, a) for a, b in hubs}
    assert other.edge_attr is not None
    assert other.edge_attr.sum() == 3 * 2
    heard = other.propagate(more, "sum")
    torch.testing.assert_close(heard[[3, 6]], torch.stack([x[:3].sum(0), x[3:].sum(0)]))


ATTENTION = {
    "gat": lambda **given: pyg.GATConv(WIDTH, HIDDEN // 2, heads=2, **given),
    "gatv2": lambda **given: pyg.GATv2Conv(WIDTH, HIDDEN // 2, heads=2, **given),
    "transformer": lambda **given: pyg.TransformerConv(WIDTH, HIDDEN // 2, heads=2, **given),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_dropout_of_attention(name: str, graph: tuple[Tensor, Tensor, Tensor]) -> None:
    """In training alone: what is attended to is as often none, and as large else, as in PyTorch Geometric's layers."""
    x, edges, _ = graph
    ours, theirs = of(f"{name}(dropout=0.4)"), ATTENTION[name](dropout=0.4)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(x, edges), theirs.eval()(x, edges), atol=CLOSE, rtol=CLOSE)
    torch.manual_seed(2)
    drawn = [torch.stack([layer.train()(x, edges).detach() for _ in range(1000)]) for layer in (ours, theirs)]
    spread = drawn[1].std(0)
    assert float(spread.max()) > 0.1
    # Five standard errors of means, and a tenth of deviations.
    assert ((drawn[0].mean(0) - ours.eval()(x, edges)).abs() <= 5 * spread / 1000**0.5 + CLOSE).all()
    torch.testing.assert_close(drawn[0].std(0), spread, atol=0.01, rtol=0.1)


@pytest.mark.parametrize("dropout", [1.0, -0.1, True, "half"])
def test_dropout_of_attention_is_a_share(dropout: Any) -> None:
    for name in ATTENTION:
        with pytest.raises(UsageError, match=f"{name}: dropout is {dropout!r}; use a number from 0 to below 1"):
            GRAPH.operator(name).make(WIDTH, HIDDEN, dropout=dropout)


def test_readouts_are_aggregators_over_the_nodes_of_a_graph() -> None:
    x, counts = torch.randn(6, WIDTH), torch.tensor([4, 2])
    graph = GraphBatch(torch.zeros(2, 0, dtype=torch.long), 6, counts=counts)
    for name, reduce in (("sum", torch.sum), ("mean", torch.mean), ("max", torch.amax)):
        wanted = torch.stack([reduce(x[:4], 0), reduce(x[4:], 0)])
        torch.testing.assert_close(READOUT.operator(name).make(WIDTH)(x, graph), wanted, atol=CLOSE, rtol=CLOSE)


def test_heads_of_links() -> None:
    x, pairs = torch.randn(5, WIDTH), torch.tensor([[0, 1, 4], [2, 1, 3]])
    dot = HEAD.operator("dot").make(WIDTH, 1)
    assert not list(dot.parameters())
    torch.testing.assert_close(dot(x, pairs)[:, 0], (x @ x.t())[pairs[0], pairs[1]], atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(dot(x, pairs), dot(x, pairs.flip(0)))
    mlp = HEAD.operator("mlp").make(WIDTH, 2)
    first, second = mlp.hidden.weight.split(WIDTH, 1)
    hidden = (x[pairs[0]] @ first.t() + x[pairs[1]] @ second.t() + mlp.hidden.bias).relu()
    torch.testing.assert_close(mlp(x, pairs), hidden @ mlp.last.weight.t() + mlp.last.bias, atol=CLOSE, rtol=CLOSE)
