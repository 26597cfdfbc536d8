"""Auto-GNN (Zhou et al. 2019): its classes, its layers node by node, its references, who may share weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import Task, graph_task
from search_spaces.auto_gnn.space import CLASSES, AutoGnn, AutoGnnSize
from search_spaces.counter import counts
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.sample import ring
from strategies.reinforcement.agnn import kinds
from training import transfer

SPACE = AutoGnn()
NODES = graph_task(7, 3, 12, 40)
GRAPHS = graph_task(7, 3, 12, 40, kind="graph-classification", level="graph")
LINKS = graph_task(7, 1, 12, 40, kind="link-prediction", level="pair")
EDGES = graph_task(7, 3, 12, 40, kind="edge-classification", level="pair")
EIGHT = "8 gat 8 sum identity elu / gat 1 sum identity linear"
SIMPLE = "8 gat 2 sum identity relu / gat 1 sum identity linear"


def test_the_classes() -> None:
    """12,348 per layer with the paper's seven activations; GraphNAS has eight."""
    sizes = {kind: len(options) for kind, options in CLASSES.items()}
    assert sizes == {"hidden": 7, "attention": 7, "heads": 6, "aggregate": 3, "combine": 2, "activation": 8}
    assert math.prod(sizes.values()) // 8 * 7 == 12_348
    assert math.prod(sizes.values()) == 14_112
    assert moves.size(SPACE) == 14_112 * 14_112 // 7
    assert {kind: len(names) for kind, names in kinds(SPACE.choices).items()} == {
        **dict.fromkeys(CLASSES, 2),
        "hidden": 1,  # the last layer is as wide as the answer
    }
    assert (AutoGnn(3).name, len(AutoGnn(3).choices)) == ("auto-gnn-3", 17)


def given(seed: int = 0, nodes: int = 12) -> tuple[Tensor, Tensor]:
    """Features, and directed edges with self-loops, twins and nodes that none reaches."""
    random = torch.Generator().manual_seed(seed)
    edges = torch.stack(
        [torch.randint(nodes, (40,), generator=random), torch.randint(nodes - 3, (40,), generator=random)]
    )
    assert (edges[0] == edges[1]).any()
    return torch.randn(nodes, 7, generator=random), edges


def built(text: str, task: Task = NODES, size: Mapping[str, Any] | None = None, layers: int = 2) -> Any:
    space = AutoGnn(layers)
    torch.manual_seed(1)
    network = space.build(space.from_text(text), task, AutoGnnSize(**{"dropout": 0.0, **(size or {})}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.7, 0.7)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network.eval()


ACTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "linear": lambda x: x,
    "softplus": lambda x: torch.log1p(x.exp()),
    "leaky_relu": lambda x: torch.maximum(x, 0.01 * x),
    "relu6": lambda x: x.clamp(0, 6),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
}


def score(attention: str, scores: Any, head: int, one: Tensor, near: Tensor) -> Tensor:
    """What a node gives to a neighbour, both `[d]`, before the softmax."""

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    if attention == "linear":
        return torch.tanh(scores.left[head] @ near)
    left, right = scores.reached[head], scores.left[head]
    if attention == "cos":
        return ((left * one) * (right * near)).sum()
    if attention == "gene-linear":
        return scores.joined[0] @ torch.tanh(left * one + right * near)
    there = leaky(left @ one + right @ near)
    return there if attention == "gat" else there + leaky(left @ near + right @ one)


def plain(network: Any, text: str, x: Tensor, edges: Tensor) -> Tensor:
    """The states of a network, node by node, neighbour by neighbour."""
    nodes = len(x)
    near: list[list[int]] = [[] for _ in range(nodes)]
    for source, target in edges.t().tolist():
        if source != target:
            near[target].append(source)
    for node in range(nodes):
        near[node].append(node)
    for layer, words in zip(network.layers, text.split(" / "), strict=True):
        attention, heads_text, aggregate, combine, activation = words.split()[-5:]
        heads, last = int(heads_text), layer is network.layers[-1]
        mapped = (x @ layer.map.weight.t()).reshape(nodes, heads, -1)
        rows = []
        for node in range(nodes):
            sides = []
            for head in range(heads):
                if attention == "const":
                    weights = torch.ones(len(near[node]))
                elif attention == "gcn":
                    weights = torch.tensor([(len(near[node]) * len(near[each])) ** -0.5 for each in near[node]])
                else:
                    ends = [
                        score(attention, layer.scores, head, mapped[node, head], mapped[each, head])
                        for each in near[node]
                    ]
                    weights = torch.stack(ends).softmax(0)
                sent = weights[:, None] * mapped[near[node], head]
                side = {"sum": sent.sum(0), "mean": sent.mean(0), "max": sent.amax(0)}[aggregate]
                if combine == "mlp":
                    first, _, second = layer.combine
                    hidden = functional.relu(first.weight @ torch.cat([mapped[node, head], side]) + first.bias)
                    side = second.weight @ hidden + second.bias
                sides.append(side)
            rows.append(torch.stack(sides).mean(0) if last else torch.cat(sides))
        state = torch.stack(rows) + layer.bias
        if layer.norm is not None:
            norm = layer.norm
            state = (state - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        if layer.skip is not None:
            state = state + x @ layer.skip.weight.t() + layer.skip.bias
        x = ACTS[activation](state)
    return x


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("aggregate", CLASSES["aggregate"])
@pytest.mark.parametrize("attention", CLASSES["attention"])
def test_layers_are_what_is_written_of_them(attention: str, aggregate: str) -> None:
    """As they learn, by sparse matrices, and as they are exported, edge by edge: every one of both kinds once."""
    exports = attention == "gat" or aggregate == "mean"
    x, edges = given()
    for combine, heads in (("identity", 2), ("mlp", 4)):
        text = f"4 {attention} {heads} {aggregate} {combine} tanh / {attention} 2 {aggregate} {combine} linear"
        network = built(text)
        wanted = plain(network, text, x, edges)
        close(network(x, edges), wanted)
        if exports and combine == "mlp":
            close(torch.export.export(network, (x, edges)).module()(x, edges), wanted)


@pytest.mark.parametrize("activation", CLASSES["activation"])
def test_activations_normalisation_and_skips(activation: str) -> None:
    x, edges = given()
    text = f"4 cos 2 sum identity {activation} / 8 gcn 1 max mlp {activation} / linear 6 mean identity {activation}"
    for size in ({}, {"batchnorm": True}, {"residual": True}, {"batchnorm": True, "residual": True}):
        network = built(text, size=size, layers=3)
        close(network(x, edges), plain(network, text, x, edges))
        assert network.layers[-1].norm is None


def test_what_is_answered_for() -> None:
    """The mean over the nodes of each graph, and the product of both nodes of a pair."""
    x, edges = given()
    text = "4 gat 2 sum identity tanh / sym-gat 2 sum identity linear"
    apart = edges[:, (edges[0] < 5) == (edges[1] < 5)]
    network = built(text, GRAPHS)
    states = plain(network, text, x, apart)
    close(network(x, apart, torch.tensor([5, 7])), torch.stack([states[:5].mean(0), states[5:].mean(0)]))
    pairs = torch.tensor([[0, 3, 11], [1, 1, 4]])
    for task in (LINKS, EDGES):
        network = built(text, task, {"embedding": 5})
        states = plain(network, text, x, edges)
        both = states[pairs[0]] * states[pairs[1]]
        wanted = both.sum(1, keepdim=True) if task is LINKS else network.pairs.classes(both)
        close(network(x, edges, pairs), wanted)


def test_gradients_are_those_of_the_plain_network() -> None:
    x, edges = given()
    for attention in CLASSES["attention"]:
        text = f"4 {attention} 2 mean identity tanh / {attention} 2 sum mlp linear"
        network = built(text)
        names, parameters = zip(*network.named_parameters(), strict=True)
        found = torch.autograd.grad(network(x, edges).square().sum(), parameters)
        wanted = torch.autograd.grad(plain(network, text, x, edges).square().sum(), parameters)
        for name, one, other in zip(names, found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=name)


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
    assert list(AutoGnn(3).named) == ["gcn", "gat"]


def test_dropout_is_of_features_states_and_attention() -> None:
    network = built(SIMPLE, size={"dropout": 0.5}).train()
    drops = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.5] * 4
    x, edges = given()
    graph = GraphBatch.of(edges, x)
    layer = network.layers[0]
    mapped = torch.ones(12, 2, 8)
    torch.manual_seed(0)
    near = layer.neighbours(mapped, graph)
    assert not torch.allclose(near, torch.ones_like(near))  # weights that add up to 1, some of them dropped
    close(layer.eval().neighbours(mapped, graph), torch.ones(12, 2, 8))


def test_costs_are_those_of_what_is_built() -> None:
    sizes = [{}, {"batchnorm": True}, {"residual": True, "batchnorm": True}]
    edges = ring(12, 40)
    rest: Mapping[int, tuple[Tensor, ...]] = {0: (), 1: (torch.tensor([12]),), 2: (edges,), 3: (edges,)}
    for number in range(24):
        space = AutoGnn(2 + number % 2)
        arch = moves.sample(space, generator("costs", number))
        place, task = number % 4, (NODES, GRAPHS, LINKS, EDGES)[number % 4]
        size = AutoGnnSize(**sizes[number % 3])
        params, macs = counts(partial(space.build, arch, task, size), (torch.ones(12, 7), edges, *rest[place]))
        assert space.costs(arch, task, size) == {"params": params, "macs": macs}, space.to_text(arch)


HOMOGENEOUS: list[tuple[str, str, set[str]]] = [
    (SIMPLE, SIMPLE, {"layer0", "layer1"}),
    # An aggregation has no weights.
    (SIMPLE, "8 gat 2 max identity relu / gat 1 sum identity linear", {"layer0", "layer1"}),
    # Attention and activation change what comes out, whatever the shapes.
    (SIMPLE, "8 sym-gat 2 sum identity relu / gat 1 sum identity linear", {"layer1"}),
    (SIMPLE, "8 gcn 2 sum identity relu / gat 1 sum identity linear", {"layer1"}),
    (SIMPLE, "8 gat 2 sum identity elu / gat 1 sum identity linear", {"layer1"}),
    (SIMPLE, "8 gat 2 sum mlp relu / gat 1 sum identity linear", {"layer1"}),
    # As wide, but other heads; the next layer reads as much as before.
    (EIGHT, "64 gat 1 sum identity elu / gat 1 sum identity linear", {"layer1"}),
    (EIGHT, "4 gat 16 sum identity elu / gat 1 sum identity linear", {"layer1"}),
    # Wider: the next layer reads more.
    (SIMPLE, "16 gat 2 sum identity relu / gat 1 sum identity linear", set()),
    (SIMPLE, "8 gat 2 sum identity relu / gat 2 sum identity linear", {"layer0"}),
]


@pytest.mark.parametrize(("one", "other", "shared"), HOMOGENEOUS)
def test_who_may_share_weights(one: str, other: str, shared: set[str], tmp_path: Path) -> None:
    """Section 3.4. Batch normalisation and skips begin anew always."""
    size = {"batchnorm": True, "residual": True}
    old, new = built(one, size=size), built(other, size=size)
    with torch.no_grad():
        for tensor in old.state_dict().values():
            tensor += 3
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    transfer.write(tmp_path / "old.safetensors", old)
    share = transfer.take(tmp_path / "old.safetensors", new)
    wanted = {
        name for name in before if f"layer{name.split('.')[1]}" in shared and name.split(".")[2] not in ("norm", "skip")
    }
    taken = {name for name, tensor in new.state_dict().items() if not torch.equal(tensor, before[name])}
    assert taken == wanted
    assert all(torch.equal(new.state_dict()[name], old.state_dict()[name]) for name in taken)
    everything = sum(tensor.numel() for tensor in before.values())
    assert share == pytest.approx(sum(before[name].numel() for name in taken) / everything)
    said = [SPACE.layer_signatures(SPACE.from_text(text)) for text in (one, other)]
    assert {layer for layer, signature in said[0].items() if said[1][layer] == signature} == shared


def test_layers_say_of_architectures_what_they_say_of_networks() -> None:
    """`layer_signatures` of any two architectures are equal where the built layers' are."""
    archs = [moves.sample(SPACE, generator("signatures", number)) for number in range(12)]
    archs += [moves.mutate(SPACE, arch, generator("mutated", number)) for number, arch in enumerate(archs)]
    networks: list[Any] = [SPACE.build(arch, NODES, AutoGnnSize()) for arch in archs]
    same = 0
    for one, first in zip(archs, networks, strict=True):
        for other, second in zip(archs, networks, strict=True):
            for layer in range(2):
                said = [SPACE.layer_signatures(arch)[f"layer{layer}"] for arch in (one, other)]
                built_ = [network.layers[layer].signature() for network in (first, second)]
                assert (said[0] == said[1]) == (built_[0] == built_[1])
                same += said[0] == said[1]
    assert same > 2 * len(archs)


def test_text() -> None:
    arch = SPACE.named["gat"]
    assert SPACE.to_text(arch) == "8 gat 8 sum identity elu / gat 1 sum identity linear"
    for text, message in (
        ("8 gat 8 sum identity elu", "has 1 layers, the space has 2"),
        ("8 gat 8 sum identity elu / 8 gat 8 sum identity elu", "layer 1 is .*; write its attention, heads"),
        ("8 gta 8 sum identity elu / gat 1 sum identity linear", "attention of layer 0 is 'gta'; it is one of const"),
        ("9 gat 8 sum identity elu / gat 1 sum identity linear", "hidden of layer 0 is '9'; it is one of 4, 8"),
    ):
        with pytest.raises(ValueError, match=message):
            SPACE.from_text(text)


def test_errors() -> None:
    for layers in (1, 17, True, "2"):
        with pytest.raises(UsageError, match=r"auto-gnn: layers is .*; use 2 to 16"):
            AutoGnn(layers)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="edges have 2 features each, of which these networks make no use"):
        SPACE.build(SPACE.named["gcn"], graph_task(7, 3, 12, 40, edge_features=2), AutoGnnSize())
    with pytest.raises(UsageError, match="has no network for"):
        SPACE.build(Architecture("auto-gnn", {}), NODES, AutoGnnSize())
