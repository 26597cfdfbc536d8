"""ARGNP: published counts, what operations compute, that relations matter, networks against straight lines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.relax import FixedPicker, Style
from nas_core.seeds import generator
from nas_core.task import GRAPH_CLASSIFICATION, LINK_PREDICTION, Task, graph_task
from search_spaces.argnp.operations import Widths, node_operation, relation_operation
from search_spaces.argnp.space import NONE, OPERATIONS, Argnp, group
from search_spaces.counter import counts
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.supernet.supernet import Supernet

SPACE, SMALL = Argnp(), Argnp(vertices=4)
SIZE = Argnp.Size(node=6, relation=4, node_output=8, relation_output=3)
TASK = graph_task(5, 3, 12, 30)
EDGES = graph_task(5, 3, 12, 30, edge_features=2)
GRAPHS = graph_task(5, 3, 12, 30, kind=GRAPH_CLASSIFICATION, level="graph")
GRAPHS_WITH_EDGES = graph_task(5, 3, 12, 30, kind=GRAPH_CLASSIFICATION, level="graph", edge_features=2)
NODES_OF_MANY = graph_task(5, 3, 12, 30, counts=True)
PAIRS = graph_task(5, 3, 12, 30, kind=LINK_PREDICTION, level="pair")
TASKS = (TASK, EDGES, GRAPHS, GRAPHS_WITH_EDGES, NODES_OF_MANY, PAIRS)
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2, both directions


def drawn(space: Argnp, count: int) -> list[Architecture]:
    return [moves.sample(space, generator("argnp", number)) for number in range(count)]


def inputs(task: Task, nodes: int = 12, edges: int = 30) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(3)
    given = {
        "x": torch.randn(nodes, 5, generator=random),
        "edge_index": torch.randint(0, nodes, (2, edges), generator=random),
        "edge_attr": torch.randn(edges, 2, generator=random),
        "counts": torch.tensor([nodes]),
        "pairs": torch.randint(0, nodes, (2, edges), generator=random),
    }
    return tuple(given[each.name] for each in task.inputs)


def test_so_many_choices_and_mixtures() -> None:
    """129 choices; a supernet of all 16 vertices has 304 mixtures, as many of nodes as of relations."""
    assert len(SPACE.choices) == 129
    for vertices, mixtures in ((2, 10), (4, 28), (16, 304)):
        space = Argnp(vertices=vertices)
        groups = Supernet(space, GRAPHS, space.Size(node=2, relation=2)).groups
        edges = {name: one for name, one in groups.items() if name != "vertices"}
        assert len(edges) == mixtures
        assert sum(name.startswith("node/") for name in edges) == mixtures // 2
        assert all(len(one.options) == 8 and one.zero == (True, *[False] * 7) for one in edges.values())


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_have_as_many_parameters_as_published(kind: str) -> None:
    """11,650 and 3,925 at 50 and 25 features, with affine normalisation."""
    widths = Widths(50, 25, 60, 30)
    for name in (NONE, *OPERATIONS[kind]):
        made = (
            node_operation(name, widths, affine=True, published_std=False)
            if kind == "node"
            else relation_operation(name, widths, affine=True)
        )
        count = sum(parameter.numel() for parameter in made.parameters())
        assert count == (0 if name in (NONE, "identity") else {"node": 11_650, "relation": 3_925}[kind])


def plain_messages(name: str, published_std: bool = False) -> Any:
    """A node operation of width 1 whose gate is 1, shift 0, and whose pooling changes no positive number."""
    made: Any = node_operation(name, Widths(1, 1, 1, 1), affine=True, published_std=published_std)
    operation = made.operation
    with torch.no_grad():
        for linear in (operation.first, operation.second):
            linear.weight.fill_(1.0)
            linear.bias.zero_()
        for linear in (operation.gate, operation.shift):
            linear.weight.zero_()
            linear.bias.zero_()
        operation.gate.bias.fill_(100.0)
    return operation


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", 1.5), ("sum", 3.0), ("max", 2.0), ("gem2", math.sqrt(2.5)), ("gem3", 4.5 ** (1 / 3)), ("std", 0.5)],
)
def test_what_node_operations_compute_of_messages_1_and_2(name: str, value: float) -> None:
    v, e = torch.tensor([[1.0], [7.0], [2.0]]), torch.zeros(4, 1)
    with torch.no_grad():
        found = plain_messages(name)(v, e, PATH)
    assert float(found[1]) == pytest.approx(value, abs=1e-5)


def test_the_published_deviation_is_none() -> None:
    """Of 1 and 2 it is 1.00000: the mean is not squared."""
    v, e = torch.tensor([[1.0], [7.0], [2.0]]), torch.zeros(4, 1)
    with torch.no_grad():
        found = plain_messages("std", published_std=True)(v, e, PATH)
    assert float(found[1]) == pytest.approx(math.sqrt(2.5 - 1.5 + 1e-5), abs=1e-6)
    other = Argnp(published_std=True)
    assert other.name != SPACE.name
    arch = SPACE.architecture([SPACE.cell(one)[0] for one in drawn(SPACE, 2)])
    text = "std(0) std(1) | sub(0) had(1) / std(0) std(1) | sub(0) had(1)"
    built = [space.build(space.from_text(text), TASK, SIZE) for space in (SPACE, other)]
    assert [type(one.operations["node0to2"].operation.aggregator).__name__ for one in built] == [
        "Deviation",
        "PublishedDeviation",
    ]
    assert SPACE.illegal(arch) is None
    assert other.illegal(arch) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("sub", 2.0), ("gauss", math.exp(-2.0)), ("max", 3.0), ("sum", 4.0), ("mean", 2.0), ("had", 3.0)],
)
def test_what_relations_compare(name: str, value: float) -> None:
    """Of 1 and 3, in either direction; then the relation is gated and shifted by it."""
    made: Any = relation_operation(name, Widths(1, 1, 1, 1), affine=True)
    operation = made.operation
    v, e, graph = torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [4.0]]), torch.tensor([[1, 0], [0, 1]])
    with torch.no_grad():
        for linear in (operation.ends.first, operation.ends.second, operation.shift):
            linear.weight.fill_(1.0)
            linear.bias.zero_()
        operation.gate.weight.zero_()
        operation.gate.bias.zero_()
        found = operation(v, e, graph)
    torch.testing.assert_close(found, torch.tensor([[-0.1 + value], [2.0 + value]]))


@pytest.mark.parametrize("name", [name for name in OPERATIONS["node"] if name != "identity"])
def test_nodes_without_neighbours_have_finite_gradients(name: str) -> None:
    v, e = torch.randn(3, 6, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    made = node_operation(name, Widths(6, 4, 8, 3), affine=True, published_std=False)
    made(v, e, torch.tensor([[0], [1]])).square().sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in (v, e, *made.parameters()) if one.grad is not None)
    assert v.grad is not None


def test_relations_matter() -> None:
    """Messages depend on relations, and these on nodes; to change two edges changes nodes behind them alone."""
    torch.manual_seed(0)
    widths = Widths(6, 4, 8, 3)
    v, e = torch.randn(3, 6, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    node: Any = node_operation("sum", widths, affine=True, published_std=False)
    relation: Any = relation_operation("sub", widths, affine=True)
    graph = GraphBatch(PATH, 3)
    for answer, reached in ((node(v, e, graph), e), (relation(v, e, graph), v)):
        [gradient] = torch.autograd.grad(answer.square().sum(), reached)
        assert gradient.abs().sum() > 0
    target = graph.edge_index[1]
    swapped = e.detach()[[0, 2, 1, 3]]  # the two edges into node 1, whose sources differ
    assert target.tolist() == [0, 1, 1, 2]
    with torch.no_grad():
        changed = (node.operation(v, swapped, graph) - node.operation(v, e, graph)).abs().sum(1)
    assert (changed > 1e-6).tolist() == [False, True, False]


def _plain(network: Any, space: Argnp, arch: Architecture, task: Task, given: tuple[Tensor, ...]) -> Tensor:
    """The network in straight lines, node by node, of its weights alone."""
    weights: dict[str, Tensor] = dict(network.state_dict())
    named = dict(zip([each.name for each in task.inputs], given, strict=True))
    order = named["edge_index"][1].argsort(stable=True)
    source, target = named["edge_index"][:, order]

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].t() + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, value: Tensor) -> Tensor:
        scaled = (value - weights[f"{name}.running_mean"]) / (weights[f"{name}.running_var"] + 1e-5).sqrt()
        return scaled * weights.get(f"{name}.weight", 1.0) + weights.get(f"{name}.bias", 0.0)

    def leaky(value: Tensor) -> Tensor:
        return torch.where(value > 0, value, 0.2 * value)

    def aggregated(how: str, sent: Tensor) -> Tensor:
        found = torch.zeros(len(named["x"]), sent.size(1))
        for node in range(len(found)):
            mine = sent[target == node]
            if how.startswith("gem"):
                power = int(how[3])
                found[node] = mine.clamp(min=1e-5).pow(power).mean(0).pow(1 / power) if len(mine) else 1e-5
            elif len(mine):
                found[node] = {
                    "sum": mine.sum(0),
                    "mean": mine.mean(0),
                    "max": mine.amax(0),
                    "std": mine.std(0, correction=0),
                }[how]
        return found

    def operated(kind: str, name: str, how: str, v: Tensor, e: Tensor) -> Tensor:
        if how == "identity":
            return v if kind == "node" else e
        if kind == "node":
            pooled = linear(f"{name}.operation.second", leaky(linear(f"{name}.operation.first", leaky(v))))
            seen, value = "relation", e
        else:
            a, b = v[source], v[target]
            seen = "ends"
            value = {
                "sub": (a - b).abs(),
                "gauss": (-((a - b) ** 2) / 2).exp(),
                "max": torch.maximum(a, b),
                "sum": a + b,
                "mean": (a + b) / 2,
                "had": a * b,
            }[how]
        z = leaky(linear(f"{name}.operation.{seen}.first", value))
        z = leaky(linear(f"{name}.operation.{seen}.second", z))
        gated = linear(f"{name}.operation.gate", z).sigmoid() * (pooled[source] if kind == "node" else leaky(e))
        value = gated + linear(f"{name}.operation.shift", z)
        value = aggregated(how, value) if kind == "node" else value
        return norm(f"{name}.norm", linear(f"{name}.linear", value))

    def fused(name: str, states: list[Tensor]) -> Tensor:
        return leaky(norm(f"{name}.norm", linear(f"{name}.linear", torch.cat([leaky(one) for one in states], 1))))

    edge_attr = named["edge_attr"][order] if "edge_attr" in named else torch.ones(len(order), 1)
    v = linear("embed", named["x"])
    e = linear("embed_relation", edge_attr) if "embed_relation.weight" in weights else edge_attr
    nodes, relations = [v, v], [e, e]
    for number, vertex in enumerate(space.cell(arch), 2):
        state = [torch.zeros(())] * 2
        for place, (kind, edges) in enumerate(zip(("node", "relation"), vertex, strict=True)):
            for read, how in edges:
                name = f"operations.{kind}{read}to{number}"
                if how == "identity" or f"{name}.linear.weight" in weights:
                    state[place] = state[place] + operated(kind, name, how, nodes[read], relations[read])
        nodes.append(state[0])
        relations.append(state[1])
    answer = fused("fuse", nodes)
    if task.level == "pair":
        answer = torch.cat([answer[named["pairs"][0]], answer[named["pairs"][1]]], 1)
    if task.level == "graph":
        edge = fused("fuse_relation", relations)
        answer = torch.cat([answer.mean(0), answer.amax(0), edge.mean(0), edge.amax(0)])[None]
    return linear("head.last", leaky(norm("head.norm", linear("head.hidden", answer))))


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{len(task.inputs)}")
def test_networks_are_those_of_straight_lines(task: Task, style: Style) -> None:
    given = inputs(task)
    for number, arch in enumerate(drawn(SMALL, 4)):
        torch.manual_seed(number)
        network: Any = SMALL.network(FixedPicker(SMALL.assignment(arch), style), task, SIZE)
        for module in network.modules():  # running statistics of its own
            if hasattr(module, "running_mean"):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        with torch.no_grad():
            wanted = _plain(network.eval(), SMALL, arch, task, given)
            torch.testing.assert_close(network(*given), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{len(task.inputs)}")
def test_costs_are_those_of_the_built_network(task: Task) -> None:
    for arch in drawn(SMALL, 5):
        params, macs = counts(lambda arch=arch: SMALL.build(arch, task, SIZE), inputs(task))  # type: ignore[misc]
        assert SMALL.costs(arch, task, SIZE) == {"params": params, "macs": macs}


@pytest.mark.parametrize("task", [TASK, GRAPHS], ids=lambda task: task.kind)
def test_every_weight_of_a_built_network_gets_a_gradient(task: Task) -> None:
    """Relations that lead to no answer are not there."""
    for arch in drawn(SMALL, 6):
        network = SMALL.build(arch, task, SIZE)
        network(*inputs(task)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_batch_of_graphs_is_its_graphs_one_by_one() -> None:
    one, other = inputs(GRAPHS_WITH_EDGES), inputs(GRAPHS_WITH_EDGES, 5, 9)
    for arch in drawn(SMALL, 3):
        network = SMALL.build(arch, GRAPHS_WITH_EDGES, SIZE).eval()
        both = network(
            torch.cat([one[0], other[0]]),
            torch.cat([one[1], other[1] + 12], 1),
            torch.cat([one[2], other[2]]),
            torch.tensor([12, 5]),
        )
        torch.testing.assert_close(both, torch.cat([network(*one), network(*other)]), rtol=1e-5, atol=1e-5)


def test_a_graph_without_edges_is_answered() -> None:
    x, no_edges = torch.randn(3, 5), torch.zeros(2, 0, dtype=torch.long)
    for arch in drawn(SMALL, 3):
        network = SMALL.build(arch, GRAPHS, SIZE)
        answer = network(x, no_edges, torch.tensor([3]))
        answer.sum().backward()
        assert torch.isfinite(answer).all()


def test_strengths_derive_two_edges_per_state_and_never_none() -> None:
    random = torch.Generator().manual_seed(0)
    groups = Supernet(SMALL, GRAPHS, SIZE).groups
    strengths = {name: torch.rand(len(one.options), generator=random).tolist() for name, one in groups.items()}
    strengths["vertices"] = [0.1, 0.2, 0.7]
    for name in list(strengths)[1:]:
        strengths[name][0] = 2.0  # none
    strengths[group("relation", 1, 3)] = [0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    strengths[group("relation", 2, 3)] = [0.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0]
    cell = SMALL.cell(SMALL.derive(strengths))
    assert len(cell) == 4
    assert cell[1].relation == ((1, "sub"), (2, "max"))
    for vertex in cell:
        for kind, edges in zip(OPERATIONS, vertex, strict=True):
            assert len({source for source, _ in edges}) == 2
            assert {operation for _, operation in edges} <= set(OPERATIONS[kind])


def test_renumbered_vertices_are_one_candidate() -> None:
    one = SPACE.from_text(
        "sum(0) max(1) | sub(0) had(1) / std(0) mean(1) | sum(0) max(1) / gem2(2) gem3(3) | sub(2) had(3)"
    )
    for same in (
        "std(0) mean(1) | sum(0) max(1) / sum(0) max(1) | sub(0) had(1) / gem3(2) gem2(3) | had(2) sub(3)",
        "max(0) sum(1) | sub(0) had(1) / std(0) mean(1) | max(0) sum(1) / gem2(2) gem3(3) | sub(2) had(3)",
    ):
        assert SPACE.identity(SPACE.from_text(same)) == SPACE.identity(one)
    for other in (
        "std(0) mean(1) | sum(0) max(1) / sum(0) max(1) | sub(0) had(1) / gem2(2) gem3(3) | sub(2) had(3)",
        "sum(0) max(1) | sub(0) had(1) / std(0) mean(1) | sum(0) max(1) / gem2(1) gem3(3) | sub(2) had(3)",
    ):
        assert SPACE.identity(SPACE.from_text(other)) != SPACE.identity(one)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(0) max(1) | sub(0) had(1)", "has 1 vertices; write 2 to 16"),
        ("sum(0) max(1) / sum(0) max(1)", "vertex 2 is 'sum"),
        ("sum(0) | sub(0) had(1) / sum(0) max(1) | sub(0) had(1)", "vertex 2 has 1 node operations, not 2"),
        ("sum(0) max(2) | sub(0) had(1) / sum(0) max(1) | sub(0) had(1)", r"reads two of 0 to 1 in ascending order"),
        ("sum(1) max(0) | sub(0) had(1) / sum(0) max(1) | sub(0) had(1)", r"ascending order"),
        ("sum(0) none(1) | sub(0) had(1) / sum(0) max(1) | sub(0) had(1)", "vertex 2 has 'none"),
    ],
)
def test_texts_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SPACE.from_text(text)


def test_encodings_join_the_features_of_nodes() -> None:
    """The same weights answer the same where the features of the data are those of both."""
    x, edge_index = inputs(TASK)
    space = Argnp(vertices=4, encodings=("random-walk(features=3)", "laplacian(features=2)"))
    others = (("random-walk(features=3)",), ("random-walk(features=3)", "laplacian(features=3)"))
    assert space.name not in (SMALL.name, *(Argnp(vertices=4, encodings=names).name for names in others))
    text = SMALL.to_text(drawn(SMALL, 1)[0])
    network: Any = space.build(space.from_text(text), TASK, SIZE).eval()
    plain = SMALL.build(SMALL.from_text(text), graph_task(5 + 3 + 2, 3, 12, 30), SIZE).eval()
    plain.load_state_dict(network.state_dict())
    graph = GraphBatch(edge_index, 12)
    wide = torch.cat([x, *(encoding(graph) for encoding in network.encodings)], 1)
    with torch.no_grad():
        torch.testing.assert_close(network(x, edge_index), plain(wide, edge_index))
        assert not torch.allclose(network(x, edge_index), plain(torch.cat([x, torch.zeros(12, 5)], 1), edge_index))
    with pytest.raises(UsageError, match="unknown encoding 'laplace'; did you mean 'laplacian'"):
        Argnp(encodings=("laplace",))
