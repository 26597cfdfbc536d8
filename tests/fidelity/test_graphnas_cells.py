"""GraphNAS (Gao et al. 2020), cells: their number, networks by layers of PyTorch Geometric, what was found."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric import nn as pyg

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import Task, graph_task
from search_spaces.counter import counts
from search_spaces.graphnas.design import cells_of_use
from search_spaces.graphnas.micro import OPERATORS, GraphNasMicro, MicroSize
from search_spaces.operators.graph.sample import ring

SPACE, FOUR = GraphNasMicro(), GraphNasMicro(nodes=4)
NODES = graph_task(7, 3, 12, 40)
GRAPHS = graph_task(7, 3, 12, 40, kind="graph-classification", level="graph")
LINKS = graph_task(7, 1, 12, 40, kind="link-prediction", level="pair")
TRAINED = "lr=0.01, dropout=0.0, weight_decay=0.0, hidden=8"


def test_the_numbers() -> None:
    """12 operators, 5 activations, 3 ways to join; 5 rates, 10 dropouts, 6 decays, 7 widths."""
    assert (len(OPERATORS), len(SPACE.choices), len(FOUR.choices)) == (12, 10, 14)
    assert moves.size(SPACE) == (2 * 12) * (3 * 12) * 5 * 3 * (5 * 10 * 6 * 7) == 27_216_000
    assert moves.size(GraphNasMicro(training=False)) == (2 * 12) * (3 * 12) * 5 * 3
    assert moves.size(GraphNasMicro(operators=("gcn", "zero"), readouts=("mean", "sum"), training=False)) == 24 * 30
    others = [SPACE, FOUR, GraphNasMicro(training=False), GraphNasMicro(operators=("gcn", "gat_1"))]
    assert len({space.name for space in others}) == 4
    assert SPACE.name == "graphnas-micro"


def given() -> tuple[Tensor, Tensor]:
    """Features, and edges with self-loops."""
    random = torch.Generator().manual_seed(0)
    edges = torch.stack([torch.randint(12, (40,), generator=random), torch.randint(9, (40,), generator=random)])
    return torch.randn(12, 7, generator=random), edges.unique(dim=1)


def built(text: str, task: Task = NODES, space: GraphNasMicro = SPACE, **size: Any) -> Any:
    torch.manual_seed(1)
    network = space.build(space.from_text(text), task, MicroSize(**size))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.7, 0.7)
    return network.eval()


def layer(name: str, operator: Any, width: int) -> nn.Module:
    """The layer of the published program's table, with the weights of an operator."""
    if name.startswith("gat"):
        found: Any = pyg.GATConv(width, width, int(name[4:]), concat=False)
        found.load_state_dict(operator.state_dict())
    elif name in ("gcn", "sg", "linear"):
        found = {"gcn": pyg.GCNConv, "sg": pyg.SGConv, "linear": nn.Linear}[name](width, width)
        found.load_state_dict(operator.state_dict())
    elif name == "cheb":
        found = pyg.ChebConv(width, width, K=2)
        found.lins[0].weight.data, found.lins[1].weight.data = operator.itself.weight, operator.neighbours.weight
        found.bias.data = operator.bias
    elif name == "sage":
        found = pyg.SAGEConv(width, width)
        found.lin_l.weight.data, found.lin_r.weight.data = operator.neighbours.weight, operator.itself.weight
        found.lin_l.bias.data = next(one for name, one in operator.named_parameters() if name.endswith("bias"))
    else:
        found = pyg.ARMAConv(width, width)
        found.init_weight.data[0] = operator.neighbours.weight.t()
        found.root_weight.data[0, 0], found.bias.data[0, 0, 0] = operator.itself.weight.t(), operator.bias
    return found


def published(network: Any, text: str, x: Tensor, edges: Tensor, layers: int = 2) -> Tensor:
    """What the last cell answers, cell by cell; one that none reads has no weights, and no answer."""
    cell, joined, _ = text.split(" / ")
    activation, join = joined.split()
    act: Any = (lambda state: state) if activation == "linear" else getattr(functional, activation)
    states: list[Tensor | None] = [x, x]
    for number in range(layers):
        if str(number) not in network.cells:
            states.append(None)
            continue
        made = network.cells[str(number)]
        inside: list[Any] = [
            made.maps[str(place)](state) if str(place) in made.maps else None for place, state in enumerate(states[-2:])
        ]
        for step, node in zip(made.steps, cell.split(", "), strict=True):
            source, name = node.split()
            if name == "zero":
                inside.append(torch.zeros(len(x), 8))
            elif name == "linear":
                inside.append(layer(name, step.operator, 8)(inside[int(source)]))
            else:
                inside.append(layer(name, step.operator, 8)(inside[int(source)], edges))
        nodes = torch.stack(inside[2:])
        if join == "concat":
            states.append(act(torch.cat(list(nodes), 1)))
        else:
            states.append(act(nodes.sum(0) if join == "add" else nodes.prod(0)))
    assert states[-1] is not None
    return states[-1]


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_the_published_layers(name: str) -> None:
    """In a cell of the features and in one of what cells answered; as they are exported, and their gradients too."""
    x, edges = given()
    text = f"1 {name}, 0 gcn / tanh concat / {TRAINED}"
    network = built(text)
    assert list(network.cells) == (["1"] if name == "zero" else ["0", "1"])
    wanted = network.classify(published(network, text, x, edges))
    close(network(x, edges), wanted)
    if name in ("gat_6", "zero"):
        close(torch.export.export(network, (x, edges)).module()(x, edges), wanted)


CELLS = [
    *(f"0 gcn, {read} sage / {act} {join}" for read, act, join in ((2, "relu", "add"), (0, "elu", "product"))),
    *(f"1 linear, 2 cheb / {act} {join}" for act, join in (("sigmoid", "concat"), ("linear", "add"))),
    "0 zero, 1 gcn / tanh add",
]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_cells_are_joined(cell: str, layers: int) -> None:
    x, edges = given()
    text = f"{cell} / {TRAINED}"
    network = built(text, layers=layers)
    close(network(x, edges), network.classify(published(network, text, x, edges, layers)))


def test_cells_that_none_reads_are_not_there() -> None:
    """One that reads only what came before the last cell skips every second one; the network found on CiteSeer is one
    cell."""
    assert cells_of_use((0,), 5) == {0, 2, 4}
    assert cells_of_use((1,), 5) == cells_of_use((0, 1), 5) == set(range(5))
    assert list(built(SPACE.to_text(SPACE.named["citeseer"])).cells) == ["1"]
    assert list(built(SPACE.to_text(SPACE.named["pubmed"])).cells) == ["0", "1"]
    assert list(built(CELLS[-1] + " / " + TRAINED).cells["0"].maps) == ["1"]  # zeros are made of nothing


def test_what_is_answered_for() -> None:
    x, edges = given()
    text = f"1 gat_2, 0 gcn / tanh concat / {TRAINED}"
    apart = edges[:, (edges[0] < 5) == (edges[1] < 5)]
    network = built(text, GRAPHS)
    states = published(network, text, x, apart)
    wanted = network.classify(torch.stack([states[:5].mean(0), states[5:].mean(0)]))
    close(network(x, apart, torch.tensor([5, 7])), wanted)
    pairs = torch.tensor([[0, 3, 11], [1, 1, 4]])
    network = built(text, LINKS)
    states = published(network, text, x, edges)
    close(network(x, edges, pairs), network.classify(states[pairs[0]] * states[pairs[1]]))


def test_features_of_edges_are_read() -> None:
    x, edges = given()
    task, e = graph_task(7, 3, 12, 40, edge_features=2), torch.randn(edges.size(1), 2)
    space = GraphNasMicro(operators=("gine", "zero"), encodings=("random-walk(features=3)",))
    network = built(f"1 gine, 1 zero / relu add / encoding=random-walk(features=3), {TRAINED}", task, space)
    assert network.cells["0"].maps["1"].in_features == 10
    assert not torch.allclose(network(x, edges, e), network(x, edges, -e))
    with pytest.raises(UsageError, match=r"none of gat_8, .*, zero reads edge_attr"):
        SPACE.build(SPACE.named["gcn"], task, MicroSize())


def test_the_training_that_is_decided() -> None:
    assert SPACE.recipe(SPACE.named["citeseer"]) == {"lr": 0.005, "weight_decay": 1e-05}
    network: Any = SPACE.build(SPACE.named["citeseer"], NODES, MicroSize())
    assert (network.drop_features.p, network.classify.in_features) == (0.8, 2 * 128)
    free = GraphNasMicro(training=False)
    assert free.recipe(free.named["gat"]) == {}
    network = free.build(free.named["gat"], NODES, MicroSize(hidden=16, dropout=0.3))
    assert (network.drop_features.p, network.classify.in_features) == (0.3, 16)
    assert free.build(free.named["gat"], NODES, MicroSize()).classify.in_features == 128  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="hidden is chosen by architectures of graphnas-micro"):
        SPACE.build(SPACE.named["gat"], NODES, MicroSize(hidden=16))


def test_what_is_known_by_name() -> None:
    """GCN and GAT with a linear map before every layer, and what was found on three data sets."""
    assert list(SPACE.named) == ["gcn", "gat", "citeseer", "pubmed"]
    assert list(FOUR.named) == ["gcn", "gat", "cora"]
    assert FOUR.to_text(FOUR.named["cora"]) == (
        "0 gat_6, 0 gcn, 0 gcn, 2 arma / tanh concat / lr=0.01, dropout=0.9, weight_decay=0.0001, hidden=64"
    )
    x, edges = given()
    network: Any = SPACE.build(SPACE.named["gcn"], NODES, MicroSize()).eval()
    state = x
    for cell in network.cells.values():
        conv = pyg.GCNConv(64, 64)
        conv.load_state_dict(cell.steps[0].operator.state_dict())
        state = conv(cell.maps["1"](state), edges).relu()
    close(network(x, edges), network.classify(state))
    assert list(GraphNasMicro(operators=("gat_8", "zero")).named) == ["gat"]
    assert "cora" in SPACE.left_out


def test_costs_are_those_of_what_is_built() -> None:
    edges = ring(12, 40)
    readouts = GraphNasMicro(nodes=3, encodings=("random-walk",), readouts=("sum", "std"), training=False)
    rest: dict[str, tuple[Tensor, ...]] = {"node": (), "graph": (torch.tensor([12]),), "pair": (edges,)}
    for number in range(9):
        space, task = (SPACE, FOUR, readouts)[number // 3], (NODES, GRAPHS, LINKS)[number % 3]
        arch = moves.sample(space, generator("costs", number))
        size = MicroSize(layers=1 + number % 4)
        params, macs = counts(partial(space.build, arch, task, size), (torch.ones(12, 7), edges, *rest[task.level]))
        assert space.costs(arch, task, size) == {"params": params, "macs": macs}, space.to_text(arch)


def test_one_function_is_one_candidate() -> None:
    def identity(cell: str, space: GraphNasMicro = FOUR) -> str:
        return space.identity(space.from_text(f"{cell} / tanh concat / {TRAINED}"))

    assert identity("0 gcn, 1 sage, 2 arma, 3 cheb") == identity("1 sage, 2 cheb, 0 gcn, 4 arma")
    assert identity("0 gcn, 1 sage, 2 arma, 3 cheb") != identity("0 gcn, 1 sage, 3 arma, 2 cheb")
    assert identity("0 gcn, 1 zero, 2 arma, 3 cheb") == identity("0 gcn, 2 zero, 2 arma, 3 cheb")
    one = SPACE.from_text(f"0 gcn, 1 sage / tanh concat / {TRAINED}")
    assert SPACE.identity(one) != SPACE.identity(Architecture(SPACE.name, {**one.values, "lr": 0.001}))


@pytest.mark.parametrize(
    ("cell", "sound"),
    [
        ("0 zero, 1 zero / relu add", False),
        ("0 zero, 2 gcn / relu concat", False),
        ("0 zero, 1 gcn / relu product", False),
        ("0 zero, 1 gcn / relu add", True),
        ("0 gcn, 1 sage / relu product", True),
    ],
)
def test_constants_are_unsound(cell: str, sound: bool) -> None:
    arch = SPACE.from_text(f"{cell} / {TRAINED}")
    assert (SPACE.unsound(arch) is None) is sound
    x, edges = given()
    network = built(SPACE.to_text(arch))
    assert bool(network(x, edges).std(0).max() > 1e-6) is sound


def test_text_and_errors() -> None:
    for text, message in (
        ("0 gcn / relu add", "write what each of 2 nodes reads and applies"),
        (f"0 gcn, 1 gnc / relu add / {TRAINED}", "node2/operator is 'gnc'; it is one of gat_8"),
        (f"0 gcn, 3 gcn / relu add / {TRAINED}", "node2/input is '3'; it is one of 0, 1, 2"),
        ("0 gcn, 1 gcn / relu add", "lr is missing; it is one of 0.0001"),
        (f"0 gcn, 1 gcn / relu add / {TRAINED}, lr=0.01", "'lr=0.01' is no choice with its value, or comes twice"),
        (
            f"0 gcn, 1 gcn / relu add / {TRAINED}, join=product",
            "'join=product' is no choice with its value, or comes twice",
        ),
        (f"0 gcn, 1 gcn / relu add / {TRAINED}, width=3", "there is no choice width in it"),
    ):
        with pytest.raises(ValueError, match=message):
            SPACE.from_text(text)
    for make, message in (
        (lambda: GraphNasMicro(nodes=0), "nodes is 0; use 1 to 16"),
        (lambda: GraphNasMicro(training=1), "training is 1; use True or False"),  # type: ignore[arg-type]
        (lambda: GraphNasMicro(operators=("gnc",)), "unknown graph operator 'gnc'; did you mean 'sgc'"),
        (lambda: GraphNasMicro(operators=("zero",)), "needs operators that add something"),
        (lambda: GraphNasMicro(operators=()), "needs operators that add something"),
        (lambda: GraphNasMicro(operators="gcn"), "list them, for example"),
        (lambda: GraphNasMicro(operators=("linear", "fc")), "both called 'fc'"),
        (lambda: GraphNasMicro(readouts=()), "needs readouts; leave them out for the mean"),
    ):
        with pytest.raises(UsageError, match=message):
            make()
