"""A graph as layers see it: every product and edge set beside PyTorch Geometric's, on ordinary and on odd graphs."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GCNConv, SGConv, SimpleConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import degree, k_hop_subgraph

from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch, Norm
from search_spaces.layers.sparse_features import SparseFeatures
from search_spaces.operators.graph.node.sgc import Simplified


def random_edges(nodes: int, edges: int) -> Tensor:
    return torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(nodes))


GRAPHS = {
    "many edges, repeated ones and loops": (9, random_edges(9, 60)),
    "few edges, isolated nodes": (30, random_edges(30, 12)),
    "no edges": (4, torch.empty(2, 0, dtype=torch.long)),
    "one node": (1, torch.empty(2, 0, dtype=torch.long)),
    "one node with loops": (1, torch.zeros(2, 2, dtype=torch.long)),
    "a star": (6, torch.tensor([[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])),
}
each_graph = pytest.mark.parametrize(("nodes", "edges"), GRAPHS.values(), ids=GRAPHS)


def geometric(norm: str, edges: Tensor, x: Tensor) -> Tensor:
    """What PyTorch Geometric's message passing answers."""
    if norm in ("sum", "mean"):
        return SimpleConv(aggr=norm)(x, edges)
    if norm == "unlooped":
        edges = edges[:, edges[0] != edges[1]]
    flow = "target_to_source" if norm == "unlooped" else "source_to_target"
    edges, weight = gcn_norm(edges, None, len(x), add_self_loops=norm == "gcn", flow=flow, dtype=x.dtype)
    return SimpleConv(aggr="sum")(x, edges, weight)


@each_graph
@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_their_gradients_are_those_of_message_passing(
    nodes: int, edges: Tensor, norm: Norm, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, back = torch.randn(nodes, 5, dtype=dtype, requires_grad=True), torch.randn(nodes, 5, dtype=dtype)
    ours, theirs = GraphBatch.of(edges, x).propagate(x, norm), geometric(norm, edges, x)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    [mine], [other] = (torch.autograd.grad(answer, x, back) for answer in (ours, theirs))
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_a_product_is_differentiable_twice_forwards_and_over_many_inputs() -> None:
    torch.manual_seed(0)
    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    x = torch.randn(nodes, 3, dtype=torch.float64, requires_grad=True)
    graph = GraphBatch.of(edges, x)

    def answer(x: Tensor) -> Tensor:
        return graph.propagate(x, "mean").sin()

    assert torch.autograd.gradcheck(answer, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(answer, x)
    many = torch.randn(4, nodes, 3, dtype=torch.float64)
    for place in (0, 2):
        together = torch.func.vmap(answer, in_dims=place)(many.movedim(0, place))
        torch.testing.assert_close(together, torch.stack([answer(one) for one in many]))


def test_half_precision_is_added_up_in_float32() -> None:
    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    half = torch.randn(nodes, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    graph = GraphBatch.of(edges, half)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(graph.propagate(half, "sum"), graph.propagate(half.float(), "sum").bfloat16())


@each_graph
def test_edges_are_sorted_by_target_and_those_of_a_target_stay_in_order(nodes: int, edges: Tensor) -> None:
    number = torch.arange(edges.size(1), dtype=torch.float32)[:, None]
    graph = GraphBatch.of(edges, torch.ones(nodes, 1), number)
    assert graph.edge_attr is not None
    assert torch.equal(graph.edge_index, edges[:, graph.edge_attr[:, 0].long()])
    assert sorted(graph.edge_attr[:, 0].tolist()) == number[:, 0].tolist()
    keys = list(zip(graph.edge_index[1].tolist(), graph.edge_attr[:, 0].tolist(), strict=True))
    assert keys == sorted(keys)
    assert torch.equal(graph.degree, degree(edges[1], nodes, dtype=torch.long))
    assert torch.equal(graph.starts.diff(), graph.degree)


@each_graph
def test_loops_are_removed_and_added(nodes: int, edges: Tensor) -> None:
    graph = GraphBatch.of(edges, torch.ones(nodes, 1))
    pairs = [pair for pair in graph.edge_index.t().tolist() if pair[0] != pair[1]]
    assert graph.unlooped.t().tolist() == pairs
    assert sorted(graph.looped.t().tolist()) == sorted(pairs + [[node, node] for node in range(nodes)])
    assert (graph.looped[1].diff() >= 0).all()
    assert (graph.normalised(torch.float32, loops="added")[0][1].diff() >= 0).all()


@each_graph
@pytest.mark.parametrize("k", [1, 2, 3])
def test_hops_are_the_pairs_at_a_distance(nodes: int, edges: Tensor, k: int) -> None:
    graph, expected = GraphBatch.of(edges, torch.ones(nodes, 1)), []
    for node in range(nodes):
        near, far = (k_hop_subgraph(node, hops, edges, num_nodes=nodes)[0].tolist() for hops in (k - 1, k))
        expected += [[source, node] for source in sorted({*far} - {*near})]
    assert graph.hops(k).t().tolist() == expected


def test_several_graphs_know_their_nodes() -> None:
    x, counts = torch.ones(6, 1), torch.tensor([3, 1, 2])
    graph = GraphBatch.of(torch.empty(2, 0, dtype=torch.long), x, counts=counts)
    assert (graph.graphs, graph.batch.tolist()) == (3, [0, 0, 0, 1, 2, 2])
    one = GraphBatch.of(torch.empty(2, 0, dtype=torch.long), x)
    assert (one.graphs, one.batch.tolist()) == (1, [0] * 6)


class Everything(torch.nn.Module):
    """What a network may ask of a graph while it is exported."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
        graph = GraphBatch.of(edge_index, x, counts=counts)
        products = (graph.propagate(x, norm) for norm in get_args(Norm))
        sums = torch.zeros(graph.graphs, x.size(1)).index_add(0, graph.batch, x)
        return sums, graph.degree, graph.looped.sum(), graph.unlooped.sum(), *products


def test_an_exported_program_answers_other_graphs_as_the_network() -> None:
    from torch.export import Dim, export

    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    torch.manual_seed(0)
    free = ({0: Dim.AUTO}, {1: Dim.AUTO}, {0: Dim.AUTO})
    given = (torch.randn(nodes, 3), edges, torch.tensor([4, nodes - 4]))
    program: Any = export(Everything(), given, dynamic_shapes=free).module()
    assert not any("sort" in str(node.target) for node in program.graph.nodes)
    for counts in ([nodes], [2, 2, nodes - 4]):
        for some in (edges[:, ::2], edges[:, :0]):
            other = (torch.randn(nodes, 3), some, torch.tensor(counts))
            for mine, theirs in zip(program(*other), Everything()(*other), strict=True):
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_graph_is_found_in_the_tensor_that_it_travels_with() -> None:
    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    x = torch.randn(nodes, 3, generator=torch.Generator().manual_seed(0))
    graph = GraphBatch(edges, nodes)
    carrier = graph.carrier(x)
    assert isinstance(carrier, EdgeIndex)
    assert GraphBatch.of(carrier, x) is graph
    same = GraphBatch.of(copy.deepcopy(carrier), x)
    assert torch.equal(same.propagate(x, "gcn"), graph.propagate(x, "gcn"))
    assert GraphBatch.of(carrier.to("cpu"), x) is graph
    for chosen in (carrier[:, 1:], carrier.clone()[:, carrier[0] > 2]):
        assert torch.equal(GraphBatch.of(chosen, x).edge_index, chosen.as_tensor())
    assert GraphBatch.of(carrier, torch.ones(nodes + 1, 3)).nodes == nodes + 1
    convolution = GCNConv(3, 2)
    torch.testing.assert_close(convolution(x, carrier), convolution(x, edges))
    assert carrier.to("meta").size(1) == edges.size(1)


def test_what_a_pass_for_inference_made_serves_a_training() -> None:
    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    x = torch.randn(nodes, 3, requires_grad=True)
    graph = GraphBatch(edges, nodes)
    with torch.inference_mode():
        graph.propagate(x.detach(), "gcn")
        graph.attention(1, x.dtype, looped=True)
    attention = graph.attention(1, x.dtype, looped=True)
    near = graph.propagate(x, "gcn")
    attention(attention.ends(near[:, :1], near[:, 1:2]), near[:, None]).square().sum().backward()
    assert x.grad is not None


class OneOperator(nn.Module):
    """SGC of raw features, with dropout before it."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop, self.operator = FeatureDropout(dropout), Simplified(width, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        answer: Tensor = self.operator(self.drop(x, graph), graph)
        return answer


@pytest.mark.parametrize("share", [1.0, 0.02])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_propagated_before_the_weights_is_propagated_once(
    share: float, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense features and few words alike: S^2 X W of a graph with many nodes and few edges."""
    torch.manual_seed(0)
    nodes, edges = 60, torch.randint(60, (2, 40))
    x = torch.randn(nodes, 50) * (torch.rand(nodes, 50) < share)
    network = OneOperator(50).train(training)
    plain = SGConv(50, 3, K=2)
    plain.load_state_dict(network.operator.state_dict())
    carrier = GraphBatch(edges, nodes).carrier(x)
    passes: list[int] = []
    propagate = GraphBatch.propagate
    monkeypatch.setattr(GraphBatch, "propagate", lambda *given: passes.append(1) or propagate(*given))
    for _ in range(3):
        network.zero_grad()
        answer = network(x, carrier)
        torch.testing.assert_close(answer, plain(x, edges), atol=1e-5, rtol=1e-5)
        answer.square().sum().backward()
        plain.zero_grad()
        plain(x, edges).square().sum().backward()
        for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    assert len(passes) == 2


def test_what_dropout_left_and_other_features_are_propagated_in_every_pass() -> None:
    torch.manual_seed(0)
    nodes, edges = 60, torch.randint(60, (2, 40))
    for share in (1.0, 0.02):
        x = torch.randn(nodes, 50) * (torch.rand(nodes, 50) < share)
        graph = GraphBatch(edges, nodes)
        graph.carrier(x)
        assert graph.spread(x, "gcn", 2) is not None
        dropped = FeatureDropout(0.5).train()(x, graph)
        for other in (dropped, x + 1, x.clone().requires_grad_()):
            assert graph.spread(other, "gcn", 2) is None
        network = OneOperator(50, dropout=0.5).train()
        expected = SGConv(50, 3, K=2)
        expected.load_state_dict(network.operator.state_dict())
        with torch.random.fork_rng():
            answer = network(x, graph.carrier(x))
        again = network.drop(x, graph)
        dense = again.csr.dense if isinstance(again, SparseFeatures) else again
        torch.testing.assert_close(answer, expected(dense, edges), atol=1e-5, rtol=1e-5)


def test_a_bag_of_words_that_edges_would_fill_is_propagated_in_every_pass() -> None:
    torch.manual_seed(0)
    x, edges = (torch.rand(60, 2000) < 0.002).float(), torch.randint(60, (2, 600))
    graph = GraphBatch(edges, 60)
    network, carrier = OneOperator(2000), graph.carrier(x)
    assert graph.spread(x, "gcn", 2) is None
    plain = SGConv(2000, 3, K=2)
    plain.load_state_dict(network.operator.state_dict())
    torch.testing.assert_close(network(x, carrier), plain(x, edges), atol=1e-5, rtol=1e-5)
