"""GraphNAS (Gao et al. 2020), whole networks: its classes, its layers message by message, its references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, MessagePassing
from torch_geometric.utils import add_self_loops, degree, remove_self_loops, softmax

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import Task, graph_task
from search_spaces.auto_gnn.layerwise import LayerwiseSize
from search_spaces.counter import counts
from search_spaces.graphnas.macro import GraphNas
from search_spaces.operators.graph.sample import ring
from strategies.reinforcement.agnn import kinds

SPACE = GraphNas()
NODES = graph_task(7, 3, 12, 40)
GRAPHS = graph_task(7, 3, 12, 40, kind="graph-classification", level="graph")
LINKS = graph_task(7, 1, 12, 40, kind="link-prediction", level="pair")
EDGES = graph_task(7, 3, 12, 40, kind="edge-classification", level="pair")
ACTIVATIONS: Mapping[str, Any] = {
    **{name: getattr(torch, name) for name in ("sigmoid", "tanh", "relu")},
    **{name: getattr(functional, name) for name in ("softplus", "leaky_relu", "relu6", "elu")},
    "linear": lambda x: x,
}


def test_the_classes() -> None:
    sizes = {kind: len(options) for kind, options in SPACE.classes.items()}
    assert sizes == {"hidden": 7, "attention": 7, "heads": 6, "aggregate": 4, "activation": 8}
    assert math.prod(sizes.values()) == 9_408
    assert moves.size(SPACE) == 9_408 * 9_408 // 7 == 12_644_352
    assert {kind: len(names) for kind, names in kinds(SPACE.choices).items()} == {
        **dict.fromkeys(sizes, 2),
        "hidden": 1,
    }
    assert (GraphNas(3).name, len(GraphNas(3).choices)) == ("graphnas-3", 14)


def given() -> tuple[Tensor, Tensor]:
    """Features, and edges with self-loops, without twins."""
    random = torch.Generator().manual_seed(0)
    edges = torch.stack([torch.randint(12, (40,), generator=random), torch.randint(9, (40,), generator=random)])
    edges = edges.unique(dim=1)
    assert (edges[0] == edges[1]).any()
    return torch.randn(12, 7, generator=random), edges


def built(text: str, task: Task = NODES, **size: Any) -> Any:
    torch.manual_seed(1)
    network = SPACE.build(SPACE.from_text(text), task, LayerwiseSize(**{"dropout": 0.0, **size}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.7, 0.7)
    return network.eval()


class Published(MessagePassing):
    """A layer message by message, as the paper's table of operators has it: `W x_j` of every neighbour is weighted by
    attention, goes through two linear maps where there are any, and is aggregated."""

    def __init__(self, layer: Any, attention: str, aggregate: str) -> None:
        super().__init__(aggr="sum" if aggregate == "mlp" else aggregate, node_dim=0)
        self.layer, self.attention, self.by = layer, attention, aggregate

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edges, _ = add_self_loops(remove_self_loops(edges)[0], num_nodes=len(x))
        mapped = (x @ self.layer.map.weight.t()).view(len(x), self.layer.parts.heads, -1)
        answer: Tensor = self.propagate(edges, x=mapped, norm=degree(edges[1], len(x)).rsqrt())
        return (answer.mean(1) if self.layer.last else answer.flatten(1)) + self.layer.bias

    def message(self, x_i: Tensor, x_j: Tensor, norm_i: Tensor, norm_j: Tensor, index: Tensor) -> Tensor:
        sent = x_j * self.weights(x_i, x_j, norm_i * norm_j, index)
        if self.by != "sum":
            sent = self.layer.pool(sent) + self.layer.added
        return sent

    def weights(self, one: Tensor, near: Tensor, norm: Tensor, index: Tensor) -> Tensor:
        """`[m, heads, 1]`."""
        if self.attention == "const":
            return torch.ones(len(one), 1, 1)
        if self.attention == "gcn":
            return norm.view(-1, 1, 1)
        scores = self.layer.scores
        if self.attention == "linear":
            return softmax(torch.tanh((near * scores.left).sum(-1)), index)[..., None]
        left, right = scores.reached, scores.left
        if self.attention == "cos":
            found = (one * left * near * right).sum(-1)
        elif self.attention == "gene-linear":
            found = torch.tanh(one * left + near * right) @ scores.joined[0]
        else:
            found = functional.leaky_relu((one * left).sum(-1) + (near * right).sum(-1), 0.2)
        if self.attention == "sym-gat":
            found = found + functional.leaky_relu((near * left).sum(-1) + (one * right).sum(-1), 0.2)
        return softmax(found, index)[..., None]


def published(network: Any, text: str, x: Tensor, edges: Tensor) -> Tensor:
    """The states of a network, by layers of PyTorch Geometric."""
    for layer, words in zip(network.layers, text.split(" / "), strict=True):
        attention, _, aggregate, activation = words.split()[-4:]
        state = Published(layer, attention, aggregate)(x, edges)
        if layer.skip is not None:
            state = state + layer.skip(x)
        x = ACTIVATIONS[activation](state)
    return x


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("aggregate", SPACE.classes["aggregate"])
@pytest.mark.parametrize("attention", SPACE.classes["attention"])
def test_layers_are_the_published_ones(attention: str, aggregate: str) -> None:
    """Where they train, by sparse matrices, and as they are exported, edge by edge; their gradients too."""
    x, edges = given()
    text = f"4 {attention} 2 {aggregate} tanh / {attention} 4 {aggregate} linear"
    network = built(text, residual=attention == "gat")
    wanted = published(network, text, x, edges)
    close(network(x, edges), wanted)
    close(torch.export.export(network, (x, edges)).module()(x, edges), wanted)
    names, weights = zip(*network.named_parameters(), strict=True)
    factors = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    found = torch.autograd.grad((network(x, edges) * factors).sum(), weights)
    for name, one, other in zip(names, found, torch.autograd.grad((wanted * factors).sum(), weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("activation", SPACE.classes["activation"])
def test_activations(activation: str) -> None:
    x, edges = given()
    text = f"8 cos 1 max {activation} / linear 6 mlp {activation}"
    network = built(text)
    close(network(x, edges), published(network, text, x, edges))


def test_what_is_answered_for() -> None:
    """The mean over the nodes of each graph, and the product of both nodes of a pair."""
    x, edges = given()
    text = "4 gat 2 mean tanh / sym-gat 2 mlp linear"
    apart = edges[:, (edges[0] < 5) == (edges[1] < 5)]
    network = built(text, GRAPHS)
    states = published(network, text, x, apart)
    close(network(x, apart, torch.tensor([5, 7])), torch.stack([states[:5].mean(0), states[5:].mean(0)]))
    pairs = torch.tensor([[0, 3, 11], [1, 1, 4]])
    network = built(text, LINKS, embedding=5)
    states = published(network, text, x, edges)
    close(network(x, edges, pairs), (states[pairs[0]] * states[pairs[1]]).sum(1, keepdim=True))


def test_the_two_references() -> None:
    """GCN and GAT by the layers of PyTorch Geometric; both are members."""
    x, edges = given()
    texts = {name: SPACE.to_text(arch) for name, arch in SPACE.named.items()}
    network = built(texts["gcn"])
    one, other = GCNConv(7, 64), GCNConv(64, 3)
    for layer, conv in zip(network.layers, (one, other), strict=True):
        conv.lin.weight.data, conv.bias.data = layer.map.weight.data, layer.bias.data
    simple = edges[:, edges[0] != edges[1]]
    close(network(x, simple), other(functional.relu(one(x, simple)), simple))
    network = built(texts["gat"])
    first, last = GATConv(7, 8, heads=8), GATConv(64, 3, heads=1, concat=False)
    for layer, attention in zip(network.layers, (first, last), strict=True):
        attention.lin.weight.data, attention.bias.data = layer.map.weight.data, layer.bias.data
        attention.att_dst.data, attention.att_src.data = layer.scores.reached.data[None], layer.scores.left.data[None]
    close(network(x, edges), last(functional.elu(first(x, edges)), edges))


def test_costs_are_those_of_what_is_built() -> None:
    edges = ring(12, 40)
    rest: Mapping[int, tuple[Tensor, ...]] = {0: (), 1: (torch.tensor([12]),), 2: (edges,), 3: (edges,)}
    for number in range(12):
        arch = moves.sample(SPACE, generator("costs", number))
        place, task = number % 4, (NODES, GRAPHS, LINKS, EDGES)[number % 4]
        size = LayerwiseSize(residual=number % 3 == 1, batchnorm=number % 3 == 2)
        params, macs = counts(partial(SPACE.build, arch, task, size), (torch.ones(12, 7), edges, *rest[place]))
        assert SPACE.costs(arch, task, size) == {"params": params, "macs": macs}, SPACE.to_text(arch)


def test_who_may_share_weights() -> None:
    """The program's key: attention, aggregation, widths and heads, whatever the activation."""
    one = SPACE.from_text("8 gat 2 sum relu / gat 1 sum linear")
    for text, shared in (
        ("8 gat 2 sum tanh / gat 1 sum elu", {"layer0", "layer1"}),
        ("8 gat 2 mlp relu / gat 1 sum linear", {"layer1"}),
        ("8 cos 2 sum relu / gat 1 sum linear", {"layer1"}),
        ("4 gat 4 sum relu / gat 1 sum linear", {"layer1"}),
        ("8 gat 4 sum relu / gat 1 sum linear", set()),
    ):
        other = SPACE.from_text(text)
        said = [SPACE.layer_signatures(arch) for arch in (one, other)]
        assert {name for name, signature in said[0].items() if said[1][name] == signature} == shared
        networks: list[Any] = [SPACE.build(arch, NODES, LayerwiseSize()) for arch in (one, other)]
        of_networks = [[layer.signature() for layer in network.layers] for network in networks]
        assert {f"layer{at}" for at in (0, 1) if of_networks[0][at] == of_networks[1][at]} == shared


def test_text_and_errors() -> None:
    text = "128 gat 4 sum linear / linear 8 sum elu"
    assert SPACE.to_text(SPACE.from_text(text)) == text
    with pytest.raises(ValueError, match=r"layer 0 is .*; write its hidden, attention, heads, aggregate, activation"):
        SPACE.from_text("128 gat 4 sum identity linear / linear 8 sum elu")
    with pytest.raises(UsageError, match="graphnas: layers is 1; use 2 to 16"):
        GraphNas(1)
    with pytest.raises(UsageError, match="edges have 2 features each, of which these networks make no use"):
        SPACE.build(SPACE.named["gcn"], graph_task(7, 3, 12, 40, edge_features=2), LayerwiseSize())
    with pytest.raises(UsageError, match="has no network for"):
        SPACE.build(Architecture("graphnas", {}), NODES, LayerwiseSize())
