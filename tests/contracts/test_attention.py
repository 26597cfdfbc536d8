"""Attention over neighbours beside PyTorch Geometric's softmax and layers, on ordinary and on odd graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, TransformerConv
from torch_geometric.utils import scatter, softmax

from search_spaces.layers.attention import Attention
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.node.gat import Attention as Gat
from search_spaces.operators.graph.node.transformer import GraphTransformer
from tests.contracts.test_graph_batch import GRAPHS, each_graph


@each_graph
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("looped", [True, False])
def test_it_is_a_softmax_over_the_edges_of_a_target(nodes: int, edges: Tensor, heads: int, looped: bool) -> None:
    torch.manual_seed(0)
    graph = GraphBatch.of(edges, torch.ones(nodes, 1))
    used = graph.looped if looped else graph.edge_index
    attention = graph.attention(heads, torch.float32, looped=looped)
    scores, x = 200 * torch.randn(used.size(1), heads), torch.randn(nodes, heads, 4)
    shares = softmax(scores, used[1], num_nodes=nodes)
    expected = scatter(shares[:, :, None] * x[used[0]], used[1], 0, nodes)
    found = attention(scores.flatten()[attention.order], x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    query, key = torch.randn(nodes, heads, 4), torch.randn(nodes, heads, 4)
    of_edges = (query[used[1]] * key[used[0]]).sum(-1).flatten()[attention.order]
    torch.testing.assert_close(attention.scores(query, key), of_edges, atol=1e-5, rtol=1e-5)
    left, reached = torch.randn(nodes, heads), torch.randn(nodes, heads)
    ends = (left[used[0]] + reached[used[1]]).flatten()[attention.order]
    torch.testing.assert_close(attention.ends(left, reached), ends)


def test_it_is_differentiable_twice() -> None:
    torch.manual_seed(0)
    nodes, edges = 5, GRAPHS["many edges, repeated ones and loops"][1] % 5
    attention = GraphBatch(edges, nodes).attention(2, torch.float64, looped=True)
    given = [torch.randn(nodes, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def answer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(attention.scores(query, key), value)

    assert torch.autograd.gradcheck(answer, given)
    assert torch.autograd.gradgradcheck(answer, given)


@each_graph
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_and_their_gradients_are_those_of_pytorch_geometric(
    nodes: int, edges: Tensor, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    for mine, theirs in (
        (Gat(6, 8, heads=2), GATConv(6, 4, heads=2)),
        (GraphTransformer(6, 8, heads=2), TransformerConv(6, 4, heads=2)),
    ):
        theirs.load_state_dict(mine.state_dict())
        x, back = torch.randn(nodes, 6, dtype=dtype, requires_grad=True), torch.randn(nodes, 8, dtype=dtype)
        found = []
        for layer in (mine.to(dtype), theirs.to(dtype)):
            answer = layer(x, edges)
            found.append((answer, *torch.autograd.grad(answer, [x, *layer.parameters()], back)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    nodes, edges = GRAPHS["many edges, repeated ones and loops"]
    layer, x = Gat(6, 8), torch.randn(nodes, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer(x, edges)
        answer.sum().backward()
    torch.testing.assert_close(answer.float(), layer(x, edges), atol=0.05, rtol=0.05)
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_what_is_the_same_for_all_weights_is_made_once() -> None:
    graph = GraphBatch(*reversed(GRAPHS["a star"]))
    one = graph.attention(2, torch.float32, looped=True)
    assert isinstance(one, Attention)
    assert graph.attention(2, torch.bfloat16, looped=True) is one
    assert graph.attention(3, torch.float32, looped=True) is not one
