"""Mostly-zero features: what layers answer, and learn, is what they do of the dense tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from search_spaces.layers import graph_batch
from search_spaces.layers.csr import Csr
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures

NODES, WIDTH = 30, 60


def words(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(NODES, WIDTH, dtype=dtype) * (torch.rand(NODES, WIDTH) < 0.05)


def sparse(x: Tensor) -> SparseFeatures:
    row, column = x.nonzero(as_tuple=True)
    return SparseFeatures(Csr.of(row, column, x[row, column], (x.size(0), x.size(1))))


def graph_of(nodes: int = NODES) -> GraphBatch:
    return GraphBatch(torch.randint(nodes, (2, 50), generator=torch.Generator().manual_seed(0)), nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_maps_and_their_gradients_are_those_of_the_dense_tensor(dtype: torch.dtype) -> None:
    x = words(dtype)
    layer = nn.Linear(WIDTH, 7, dtype=dtype)
    found = []
    for given in (x, sparse(x)):
        answer = layer(given)
        first = torch.autograd.grad(answer.square().sum(), list(layer.parameters()), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), layer.weight)
        found.append((answer, *first, *second, given @ layer.weight.t(), torch.mm(given, layer.weight.t())))
    for dense, other in zip(*found, strict=True):
        assert type(other) is Tensor
        torch.testing.assert_close(other, dense, atol=1e-5, rtol=1e-5)


def test_a_linear_map_needs_no_dense_tensor() -> None:
    x, layer = sparse(words()), nn.Linear(WIDTH, 7)
    layer(x).sum().backward()
    assert "dense" not in vars(x.csr)


def test_to_everything_else_it_is_the_dense_tensor() -> None:
    x, edges = words(), graph_of().edge_index
    given = sparse(x)
    assert (given.shape, given.dtype, given.dim(), given.is_sparse) == (x.shape, x.dtype, 2, False)
    for other in (given * 2 / 2, given.clone(), given.index_select(0, torch.arange(NODES)), given[:, :], +given):
        assert torch.equal(other, x)
    assert torch.equal(torch.cat([given, given], 1), torch.cat([x, x], 1))
    assert torch.equal(given.sum(1), x.sum(1))
    attention = GATConv(WIDTH, 4, heads=2)
    torch.testing.assert_close(attention(given, edges), attention(x, edges))
    assert torch.equal(torch.mm(x.t(), given), torch.mm(x.t(), x))


def test_dropout_keeps_zeros_and_the_mean_and_its_gradient_is_of_what_was_kept() -> None:
    x, graph, layer = words() + 0.0, graph_of(), nn.Linear(WIDTH, 5, bias=False)
    drop = FeatureDropout(0.5).train()
    dropped = drop(x, graph)
    assert isinstance(dropped, SparseFeatures)
    dense = dropped.csr.dense
    assert set((dense / x)[x != 0].tolist()) == {0.0, 2.0}
    layer(dropped).square().sum().backward()
    gradient = layer.weight.grad
    expected = torch.autograd.grad(layer(dense).square().sum(), layer.weight)[0]
    torch.testing.assert_close(gradient, expected)
    many = torch.stack([drop(x, graph).csr.dense for _ in range(400)])
    torch.testing.assert_close(many.mean(0), x, atol=0.5, rtol=0.3)


def test_features_are_looked_at_once_and_again_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    x, graph, looked = words(), graph_of(), []
    find = graph_batch._sparse
    monkeypatch.setattr(graph_batch, "_sparse", lambda x: looked.append(1) or find(x))
    assert graph.sparse(x) is not graph.sparse(x)
    looked.clear()
    graph.carrier(x)
    assert graph.sparse(x) is graph.sparse(x)
    assert len(looked) == 1
    x[0] = 3.0
    changed = graph.sparse(x)
    assert changed is not None
    assert torch.equal(changed.dense, x)
    assert graph.sparse(x + 1) is None  # nothing is zero
    assert graph.sparse(x.clone().requires_grad_()) is None


def test_plain_tensors_stay_dense_in_evaluation_and_a_layer_that_takes_none_gets_none() -> None:
    x, graph = words(), graph_of()
    drop = FeatureDropout(0.5)
    assert drop.eval()(x, graph) is x
    graph.carrier(x)
    assert torch.equal(drop(x, graph).csr.dense, x)
    drop.dense = True
    for mode in (True, False):
        assert type(drop.train(mode)(x, graph)) is Tensor
