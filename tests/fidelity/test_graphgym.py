"""GraphGym (You et al. 2020): its grids, its networks, its rule for a number of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, TrialError, UsageError
from nas_core.task import Task, graph_task
from search_spaces.counter import counts
from search_spaces.graphgym.costs import matched
from search_spaces.graphgym.space import GraphGym, GraphGymSize
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures
from search_spaces.operators.graph.sample import ring

NODES = graph_task(7, 3, 20, 44)
GRAPHS = graph_task(7, 3, 20, 44, kind="graph-classification", level="graph")
LINKS = graph_task(7, 1, 20, 44, kind="link-prediction", level="pair")
PAIRS = graph_task(7, 3, 20, 44, kind="edge-classification", level="pair")
DESIGN = (
    "layers/pre=2,layers/message=4,layers/post=2,connectivity=skipconcat,batchnorm=True,activation=relu,dropout=0.3,"
    "aggregation=mean,batch_size=32,optimizer=adam,lr=0.01,epochs=200"
)


def design(space: GraphGym, **changes: Any) -> Architecture:
    """DESIGN with other values; `layers_message` is `layers/message`."""
    values = dict(part.split("=") for part in DESIGN.split(","))
    values |= {name.replace("layers_", "layers/"): str(value) for name, value in changes.items()}
    return space.from_text(",".join(f"{name}={value}" for name, value in values.items()))


def test_the_grids() -> None:
    assert moves.size(GraphGym()) == 314_928
    assert moves.size(GraphGym(condensed=True)) == 96
    assert moves.size(GraphGym(training=False)) == 314_928 // (3 * 2 * 3 * 3)
    assert (GraphGym().name, GraphGym(condensed=True).name) == ("graphgym", "graphgym-condensed")
    others = [GraphGym(training=False), GraphGym(True, training=False), GraphGym(operators=("gcn", "gat"))]
    assert len({space.name for space in others}) == 3
    assert GraphGym(operators=("gcn", "gat")).name == others[-1].name


def test_what_is_decided_of_the_training() -> None:
    space = GraphGym()
    assert space.recipe(design(space, lr=0.001)) == {"batch_size": 32, "optimizer": "adam", "lr": 0.001, "epochs": 200}
    condensed = GraphGym(condensed=True)
    arch = moves.sample(condensed, np.random.default_rng(0))
    assert condensed.recipe(arch) == {"batch_size": 32, "optimizer": "adam", "lr": 0.01, "epochs": 400}
    assert condensed.values(arch) | {"batchnorm": True, "activation": "prelu", "dropout": 0.0} == condensed.values(arch)
    free = GraphGym(training=False)
    assert free.recipe(moves.sample(free, np.random.default_rng(0))) == {}


def dense(network: nn.Module, x: Tensor, edges: Tensor, aggregation: str) -> Tensor:
    """The states of a network in evaluation mode, by matrices."""
    adjacency = torch.zeros(len(x), len(x))
    adjacency.index_put_((edges[1], edges[0]), torch.ones(edges.size(1)), accumulate=True)
    for layer in network.before:
        x = layer(x)
    for layer in network.layers:
        operator = layer.step.operator
        projected = x @ operator.neighbours.weight.t()
        if aggregation == "max":
            near = torch.stack([(row[:, None] + projected).amax(0) for row in torch.log(adjacency.clamp(max=1))])
            near[adjacency.sum(1) == 0] = 0.0
        else:
            near = adjacency @ projected
            near = near / adjacency.sum(1, keepdim=True).clamp(min=1) if aggregation == "mean" else near
        new = near + x @ operator.itself.weight.t() + (0 if operator.itself.bias is None else operator.itself.bias)
        for part in layer.wrapper:
            new = part(new)
        new = {"stack": new, "skipsum": x + new if x.shape == new.shape else new}.get(
            layer.connectivity, torch.cat([x, new], 1)
        )
        x = layer.activation(new)
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
@pytest.mark.parametrize("connectivity", ["stack", "skipsum", "skipconcat"])
@pytest.mark.parametrize("batchnorm", [True, False])
def test_networks_are_products_of_matrices(aggregation: str, connectivity: str, batchnorm: bool) -> None:
    space, size = GraphGym(), GraphGymSize(hidden=5)
    arch = design(space, aggregation=aggregation, connectivity=connectivity, batchnorm=batchnorm, activation="prelu")
    torch.manual_seed(0)
    x, edges = torch.randn(20, 7), torch.randint(18, (2, 44))
    for task in (NODES, GRAPHS, LINKS, PAIRS):
        network: Any = space.build(arch, task, size)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d):
                nn.init.uniform_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)
        network.eval()
        states = dense(network, x, edges, aggregation)
        if task is NODES:
            torch.testing.assert_close(network(x, edges), network.head(states), atol=1e-5, rtol=1e-5)
        elif task is GRAPHS:
            cut = edges[:, (edges[0] < 13) == (edges[1] < 13)]
            states = dense(network, x, cut, aggregation)
            wanted = network.head(torch.stack([states[:13].sum(0), states[13:].sum(0)]))
            torch.testing.assert_close(network(x, cut, torch.tensor([13, 7])), wanted, atol=1e-4, rtol=1e-4)
        else:
            pairs, last = ring(20, 6), network.head(states)
            both = last[pairs[0]] * last[pairs[1]]
            wanted = both.sum(1, keepdim=True) if task is LINKS else network.pairs.classes(both)
            torch.testing.assert_close(network(x, edges, pairs), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [2, 4, 6, 8])
def test_the_width_after_skipconcat(layers: int) -> None:
    space = GraphGym()
    network: Any = space.build(design(space, layers_message=layers, layers_post=1), NODES, GraphGymSize(hidden=6))
    assert network.head[-1].in_features == 6 + layers * 6


def published(count: Callable[[int], int], target: int, width: int = 256) -> int:
    """The procedure of the published program, step by step, with its upper match."""
    while count(width) != target:
        step = round(width * math.sqrt(target / count(width))) - width
        width += step
        if abs(step) <= 1:
            break
    if count(width) == target:
        return width
    upward = count(width) < target
    while True:
        width += 1 if upward else -1
        if count(width) == target:
            return width
        if (count(width) < target) != upward:
            return width if upward else width + 1


@pytest.mark.parametrize("number", range(8))
def test_widths_for_a_number_of_parameters(number: int) -> None:
    """As the published procedure finds them; one feature less has fewer parameters than the target."""
    space = GraphGym()
    arch = moves.sample(space, np.random.default_rng(number))
    one = graph_task(1, 1, 1, 1)

    def count(width: int) -> int:
        return int(space.costs(arch, one, GraphGymSize(hidden=width))["params"])

    for target in (2_000, 30_000, 187_000):
        size = GraphGymSize(target_params=target)
        width = space.width(arch, NODES, size)
        assert width == matched(count, target) == published(count, target)
        assert count(width - 1) < target <= count(width)
        assert space.hidden_units(arch, NODES, size) == {"layer": width}
    size = GraphGymSize(target_params=2_000)
    network = space.build(arch, one, size)
    assert sum(each.numel() for each in network.parameters()) == count(space.width(arch, one, size))


def test_states_have_length_one() -> None:
    space = GraphGym()
    x, edges = torch.randn(20, 7), ring(20, 44)
    for l2norm in (True, False):
        network: Any = space.build(design(space, dropout=0.0), NODES, GraphGymSize(hidden=5, l2norm=l2norm)).eval()
        answer = network(x, edges)
        states = network.states(x, GraphBatch.of(edges, x))
        assert bool(torch.allclose(states.norm(dim=1), torch.ones(20))) == l2norm
        torch.testing.assert_close(answer, network.head(states))


def test_a_batch_of_one_graph_trains() -> None:
    """Whose batch normalisation has one row alone to learn from."""
    space = GraphGym()
    network: Any = space.build(design(space, layers_post=3), GRAPHS, GraphGymSize(hidden=5)).train()
    x, edges = torch.randn(20, 7), ring(20, 44)
    network(x, edges, torch.tensor([20])).sum().backward()
    norm = next(each for each in network.head if isinstance(each, nn.BatchNorm1d))
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))


def test_the_two_references() -> None:
    """GCN's nearest member averages; with both operators they are what they are called."""
    space = GraphGym(operators=("general", "gcn", "gat"))
    assert {name: arch.values["operator"] for name, arch in space.named.items()} == {"gcn": "gcn", "gat": "gat"}
    assert GraphGym().named["gcn"].values["aggregation"] == "mean"
    assert list(GraphGym().named) == ["gcn"]
    assert "graphgym(operators=" in GraphGym().left_out["gat"]
    heads = GraphGym(operators=("general", "gat(heads=4)"))
    assert heads.named["gat"].values["operator"] == "gat(heads=4)"
    for known in (space, GraphGym(), GraphGym(condensed=True)):
        for arch in known.named.values():
            assert known.illegal(arch) is None


def without(**more: Any) -> GraphGym:
    """The space with no linear layers before and after as further options."""
    return GraphGym(pre=(0, 1, 2, 3), post=(0, 1, 2, 3), **more)


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_gcn_and_gat_are_members_without_linear_layers(name: str) -> None:
    """The networks of Kipf and Welling (2017) and Velickovic et al. (2018), by PyTorch Geometric's layers."""
    space = without(operators=("general", "gcn", "gat(heads=4)"))
    torch.manual_seed(0)
    network: Any = space.build(space.named[name], NODES, GraphGymSize(hidden=8)).eval()
    layers: list[Any] = {
        "gcn": [GCNConv(7, 8), GCNConv(8, 3)],
        "gat": [GATConv(7, 2, heads=4), GATConv(8, 3, heads=1)],
    }[name]
    for plain, layer in zip(layers, network.layers, strict=True):
        nn.init.normal_(layer.step.operator.bias)
        plain.load_state_dict(layer.step.operator.state_dict())
    x, edges = torch.randn(20, 7), ring(20, 44)
    torch.testing.assert_close(network(x, edges), layers[1](layers[0](x, edges).relu(), edges))
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for one in layers for p in one.parameters())


@pytest.mark.parametrize("connectivity", ["stack", "skipsum", "skipconcat"])
@pytest.mark.parametrize("batchnorm", [True, False])
@pytest.mark.parametrize(("pre", "post"), [(0, 1), (1, 0), (0, 0)])
def test_networks_without_linear_layers(pre: int, post: int, batchnorm: bool, connectivity: str) -> None:
    """By plain products: nothing goes around a layer that maps features or answers, and nothing follows the latter."""
    space = without(training=False)
    arch = space.from_text(
        f"layers/pre={pre},layers/message=4,layers/post={post},connectivity={connectivity},batchnorm={batchnorm},"
        "activation=swish,dropout=0.3,aggregation=sum"
    )
    torch.manual_seed(0)
    x, edges, pairs = torch.randn(20, 7), torch.randint(20, (2, 44)), ring(20, 6)
    adjacency = torch.zeros(20, 20).index_put_((edges[1], edges[0]), torch.ones(44), accumulate=True)
    for task in (NODES, GRAPHS, LINKS, PAIRS):
        network: Any = space.build(arch, task, GraphGymSize(hidden=5)).eval()
        norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm1d)]
        assert len(norms) == (3 + pre + post if batchnorm else 0)
        for norm in norms:
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        state = network.before(x)
        for number, layer in enumerate(network.layers):
            step = layer.step.operator
            new = adjacency @ step.neighbours(state) + step.itself(state)
            answers, alone = number == 3 and not post, number == 0 and not pre
            assert (step.itself.bias is None) == (batchnorm and not answers)
            new = new if answers else layer.wrapper(new)
            if not (answers or alone or connectivity == "stack"):
                new = state + new if connectivity == "skipsum" else torch.cat([state, new], 1)
            state = new if answers else functional.silu(new)
        if post:
            state = state / state.norm(dim=1, keepdim=True)
        given: tuple[Tensor, ...] = (x, edges)
        if task is GRAPHS:
            state, given = state.sum(0, keepdim=True), (x, edges, torch.tensor([20]))
        state = network.head(state)
        if task in (LINKS, PAIRS):
            both, given = state[pairs[0]] * state[pairs[1]], (x, edges, pairs)
            state = both.sum(1, keepdim=True) if task is LINKS else network.pairs.classes(both)
        torch.testing.assert_close(network(*given), state, atol=1e-4, rtol=1e-4)
        assert len(network.head) == post


def test_spaces_without_linear_layers_have_names_of_their_own() -> None:
    assert GraphGym(pre=(1, 2, 3), post=(3, 2, 1)).name == "graphgym"
    spaces = [GraphGym(pre=(0, 1)), GraphGym(post=(0, 1)), without(), GraphGym(pre=(0, 1), rewirings=("virtual-node",))]
    assert len({space.name for space in spaces}) == 4
    assert moves.size(without()) == 314_928 // 9 * 16
    only = GraphGym(pre=(0,), post=(0,))
    assert "layers/pre" not in only.named["gcn"].values


def test_connectivities_around_nothing_are_one() -> None:
    """Of two layers of messages the first maps the features and the second answers."""
    space = without(training=False)

    def identities(pre: int, message: int, post: int) -> int:
        rest = "batchnorm=False,activation=relu,dropout=0.0,aggregation=sum"
        ways = ("stack", "skipsum", "skipconcat")
        texts = [
            f"layers/pre={pre},layers/message={message},layers/post={post},connectivity={way},{rest}" for way in ways
        ]
        return len({space.identity(space.from_text(text)) for text in texts})

    assert [identities(*each) for each in ((0, 2, 0), (0, 2, 1), (1, 2, 0), (0, 4, 0))] == [1, 3, 3, 3]


def test_sizes_are_recorded_as_before() -> None:
    """Where features are not dropped, so that earlier studies go on."""
    assert GraphGymSize(hidden=5).model_dump() == {"hidden": 5, "target_params": None, "l2norm": True}
    assert GraphGymSize(dropout_features=0.5).model_dump()["dropout_features"] == 0.5


def test_dropout_of_features() -> None:
    """As the first layer is given them, in training alone."""
    task, size = graph_task(2000, 3, 20, 44), GraphGymSize(hidden=4, dropout_features=0.75)
    # gatv2 takes no sparse features.
    for pre, operator in ((1, "gcn"), (0, "gcn"), (0, "gatv2"), (1, "gatv2")):
        space = without(operators=(operator,), training=False)
        named = space.to_text(
            space.named["gcn"] if operator == "gcn" else moves.sample(space, np.random.default_rng(0))
        )
        torch.manual_seed(0)
        network: Any = space.build(space.from_text(f"layers/pre={pre}," + named.partition(",")[2]), task, size)
        words, edges, seen = (torch.rand(20, 2000) < 0.02).float(), ring(20, 44), list[Tensor]()
        first = network.before[0] if pre else network.layers[0].step
        first.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        network.train()(words, edges)
        network.eval()(words, edges)
        assert isinstance(seen[0], SparseFeatures) == (operator == "gcn" or pre == 1)
        trained, evaluated = (each.csr.dense if isinstance(each, SparseFeatures) else each for each in seen)
        kept = trained[words > 0]
        assert set(kept.unique().tolist()) == {0.0, 4.0}
        assert 0.15 < float((kept > 0).float().mean()) < 0.35
        assert torch.equal(evaluated, words)
        assert not trained[words == 0].any()


def test_operators_aggregators_encodings_and_readouts() -> None:
    space = GraphGym(
        operators=("general", "gat(heads=4)"),
        aggregators=("sum", "lcm"),
        encodings=("random-walk(features=4)",),
        readouts=("mean", "softmax"),
    )
    text = (
        "operator=general,encoding=random-walk(features=4),readout=softmax,layers/pre=1,layers/message=2,layers/post=1,"
        "connectivity=stack,batchnorm=True,activation=relu,dropout=0.0,aggregation=lcm,batch_size=16,optimizer=sgd,"
        "lr=0.1,epochs=100"
    )
    arch = space.from_text(text)
    assert space.to_text(arch) == text
    network: Any = space.build(arch, GRAPHS, GraphGymSize(hidden=8))
    assert network.before[0].in_features == 7 + 4
    assert network(torch.randn(20, 7), ring(20, 44), torch.tensor([20])).shape == (1, 3)
    names = {choice.name: choice for choice in space.choices}
    assert names["aggregation"].when[0].values == ("general",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphGym(operators=("gcnn",)), "unknown graph operator 'gcnn'; did you mean 'gcn'"),
        (lambda: GraphGym(aggregators=("sun",)), "unknown aggregator 'sun'; did you mean 'sum'"),
        (lambda: GraphGym(encodings=("laplace",)), "unknown encoding 'laplace'; did you mean 'laplacian'"),
        (lambda: GraphGym(readouts=("meen",)), "unknown readout 'meen'; did you mean 'mean'"),
        (lambda: GraphGym(operators=()), "graphgym needs operators; leave them out"),
        (lambda: GraphGym(aggregators=()), "'general' needs aggregators"),
        (lambda: GraphGym(pre=()), r"graphgym: pre is \(\); give different numbers of layers, pre=\(0, 1, 2, 3\)"),
        (lambda: GraphGym(pre=2), "graphgym: pre is 2; give"),  # type: ignore[arg-type]
        (lambda: GraphGym(post=(1, 1)), r"graphgym: post is \(1, 1\); give"),
        (lambda: GraphGym(post=(0, -1)), r"graphgym: post is \(0, -1\); give"),
        (lambda: GraphGym(pre=(0, True)), r"graphgym: pre is \(0, True\); give"),
    ],
)
def test_errors_of_parts(make: Callable[[], GraphGym], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_errors() -> None:
    space = GraphGym()
    arch = design(space)
    narrowest = r"target_params {} is below \d+, the parameters of this network at its narrowest, 1 wide"
    with pytest.raises(UsageError, match=narrowest.format(3)):
        space.build(arch, NODES, GraphGymSize(target_params=3))
    edges = graph_task(7, 3, 20, 44, edge_features=2)
    attention = GraphGym(operators=("gat",))
    with pytest.raises(UsageError, match="none of gat reads edge_attr"):
        attention.build(attention.named["gat"], edges, GraphGymSize(hidden=4))
    with pytest.raises(UsageError, match="'gat' has 2 heads, which do not make up hidden=5"):
        attention.build(attention.named["gat"], NODES, GraphGymSize(hidden=5))
    # What other members can, fails for this one alone.
    small, large = (space.from_text(DESIGN.replace("message=4", f"message={count}")) for count in (2, 8))
    between = GraphGymSize(
        target_params=int(space.costs(small, graph_task(1, 1, 1, 1), GraphGymSize(hidden=1))["params"])
    )
    assert space.width(small, NODES, between) == 1
    with pytest.raises(TrialError, match=narrowest.format(between.target_params)):
        space.build(large, NODES, between)
    heads = GraphGym(operators=("gcn", "gat(heads=3)"))
    gat = next(
        arch
        for arch in (moves.sample(heads, np.random.default_rng(n)) for n in range(99))
        if arch.values["operator"] != "gcn"
    )
    with pytest.raises(TrialError, match="has 3 heads, which do not make up hidden=4"):
        heads.build(gat, NODES, GraphGymSize(hidden=4))
    with pytest.raises(NotFoundError, match="there is no file"):
        GraphGym(operators=("absent.py:Mine",))
    for text, message in (
        ("layers/pre=1", "layers/message is missing; it is one of 2, 4, 6, 8"),
        (DESIGN.replace("pre=2", "pre=5"), "layers/pre is '5'; it is one of 1, 2, 3"),
        (DESIGN + ",depth=3", "there is no choice depth"),
        (DESIGN + ",epochs=100", "comes twice"),
    ):
        with pytest.raises(ValueError, match=message):
            space.from_text(text)


def test_a_task_of_edges_with_features() -> None:
    space = GraphGym(operators=("general", "gine", "gatv2"), training=False)
    task: Task = graph_task(7, 3, 20, 44, edge_features=2)
    torch.manual_seed(0)
    x, edges, e = torch.randn(20, 7), ring(20, 44), torch.randn(44, 2)
    for number in range(6):
        arch = moves.sample(space, np.random.default_rng(number))
        network = space.build(arch, task, GraphGymSize(hidden=4)).eval()
        other = network(x, edges, e.flip(0))
        assert not torch.allclose(network(x, edges, e), other)
        assert functional.softmax(other, 1).isfinite().all()


def test_words_are_read_as_a_sparse_matrix() -> None:
    """By the first linear map, with the same answers and gradients."""
    torch.manual_seed(0)
    words, edges = (torch.rand(20, 200) < 0.01).float(), torch.randint(20, (2, 44))
    space = GraphGym()
    network: Any = space.build(design(space, dropout=0.0), graph_task(200, 3, 20, 44), GraphGymSize(hidden=5))
    seen: list[type] = []
    network.before[0].register_forward_pre_hook(lambda _, given: seen.append(type(given[0])))
    answers, slopes = [], []
    for x in (words, words.clone().requires_grad_()):
        network.zero_grad()
        answers.append(network.train()(x, edges))
        answers[-1].square().sum().backward()
        slopes.append(network.before[0].weight.grad.clone())
    assert seen == [SparseFeatures, Tensor]
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("task", [NODES, GRAPHS], ids=["nodes", "graphs"])
def test_messages_pass_on_the_graph_that_a_rewiring_makes(task: Task) -> None:
    """With a virtual node, which begins with zeros, they are those of the graph with one node more."""
    space = GraphGym(rewirings=("virtual-node",))
    assert moves.size(space) == 2 * 314_928
    arch = design(space, rewiring="virtual-node", batchnorm=False)
    torch.manual_seed(0)
    x, edges = torch.randn(20, 7), torch.randint(18, (2, 44))
    network: Any = space.build(arch, task, GraphGymSize(hidden=5)).eval()
    ends, hub = torch.arange(20), torch.full((20,), 20)
    more = torch.cat([edges, torch.stack([ends, hub]), torch.stack([hub, ends])], 1)
    graph = GraphBatch(more, 21)
    state = torch.cat([network.before(x), torch.zeros(1, 5)])
    for layer in network.layers:
        state = layer(state, None, graph)
    wanted = functional.normalize(state[:20], dim=-1)
    if task is GRAPHS:
        given, answer = (x, edges, torch.tensor([20])), network.head(wanted.sum(0, keepdim=True))
    else:
        given, answer = (x, edges), network.head(wanted)  # type: ignore[assignment]
    torch.testing.assert_close(network(*given), answer)
    torch.testing.assert_close(torch.export.export(network, given).module()(*given), answer, atol=1e-5, rtol=1e-5)
    without = space.build(design(space, rewiring="none", batchnorm=False), task, GraphGymSize(hidden=5))
    assert without.state_dict().keys() == network.state_dict().keys()
    assert len(without.rewirings) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("rewiring", ["none", "virtual-node"])
def test_costs_are_of_the_graph_that_messages_pass_on(rewiring: str) -> None:
    space, size = GraphGym(rewirings=("virtual-node",)), GraphGymSize(hidden=5)
    arch = design(space, rewiring=rewiring)
    params, macs = counts(lambda: space.build(arch, NODES, size), (torch.ones(20, 7), ring(20, 44)))
    assert space.costs(arch, NODES, size) == {"params": params, "macs": macs}


def test_each_graph_has_a_virtual_node_of_its_own() -> None:
    """Several graphs are answered as one by one."""
    space = GraphGym(rewirings=("virtual-node",))
    arch = design(space, rewiring="virtual-node")
    torch.manual_seed(0)
    x, edges = torch.randn(20, 7), torch.randint(20, (2, 60))
    first, second = (edges[:, (edges < 13).all(0)], edges[:, (edges >= 13).all(0)])
    for task in (GRAPHS, graph_task(7, 3, 20, 44, kind="inductive-node-classification", counts=True)):
        network: Any = space.build(arch, task, GraphGymSize(hidden=5)).eval()
        together = network(x, torch.cat([first, second], 1), torch.tensor([13, 7]))
        alone = network(x[:13], first, torch.tensor([13])), network(x[13:], second - 13, torch.tensor([7]))
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
