"""NAS-Bench-Graph: counts, isomorphism reduction, networks and costs against the published facts."""

from __future__ import annotations

import csv
import gzip
from itertools import permutations, product
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.task import NODE_CLASSIFICATION, Task
from search_spaces.nasbench_graph.costs import operation_macs
from search_spaces.nasbench_graph.space import (
    LINK_LISTS,
    NODES,
    OPERATIONS,
    TOPOLOGIES,
    GraphSize,
    NasBenchGraph,
    reorder,
    representative,
)
from search_spaces.operators.graph import GRAPH

SPACE = NasBenchGraph()
FULL = GraphSize.preset("full")
CORA = Task(kind=NODE_CLASSIFICATION, input_shape=(1433,), outputs=7, nodes=2708, edges=10556)
CITESEER = Task(kind=NODE_CLASSIFICATION, input_shape=(3703,), outputs=6, nodes=3327, edges=9104)
SMALL = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=3, nodes=20, edges=40)
NARROW = GraphSize.preset("search", hidden=8)

link_lists = st.sampled_from(sorted(LINK_LISTS))
operation_lists = st.lists(st.sampled_from(OPERATIONS), min_size=NODES, max_size=NODES).filter(
    lambda operations: operations != ["skip"] * NODES
)


def text(links: str, operations: tuple[str, ...] | list[str]) -> str:
    return f"{links}:{','.join(operations)}"


def graph(task: Task, seed: int = 0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((task.nodes, task.input_shape[0]), generator=generator)
    return features, torch.randint(0, task.nodes, (2, task.edges), generator=generator)


def build(notation: str, task: Task, size: GraphSize, seed: int = 0):
    import torch

    torch.manual_seed(seed)
    return SPACE.build(SPACE.from_text(notation), task, size)


# -- the space ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything() -> list[Architecture]:
    return list(moves.enumerate_all(SPACE))


def test_counts(everything: list[Architecture]) -> None:
    assert len(LINK_LISTS) == 24
    assert {topology for topology, _ in LINK_LISTS.values()} == set(TOPOLOGIES)
    assert len(everything) == 9 * 9**4 - 9
    assert len({SPACE.identity(arch) for arch in everything}) == 26206


def test_identity_is_the_notation_of_a_member(everything: list[Architecture]) -> None:
    for identity in {SPACE.identity(arch) for arch in everything[::7]}:
        member = SPACE.from_text(identity)
        assert SPACE.to_text(member) == SPACE.identity(member) == identity


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_all_skip_is_illegal(topology: str) -> None:
    values = {"topology": topology, **{f"node{node}/operation": "skip" for node in range(1, 5)}}
    reason = SPACE.illegal(Architecture(SPACE.name, values))
    assert reason is not None
    assert "node4/operation" in reason
    with pytest.raises(ValueError, match="not allowed"):
        SPACE.from_text(text(topology, ["skip"] * 4))
    assert SPACE.illegal(Architecture(SPACE.name, {**values, "node2/operation": "fc"})) is None


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_moves_stay_legal(seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    arch = moves.sample(SPACE, rng)
    # Three skips, so that one move away lies the illegal architecture.
    edge = SPACE.from_text(text("0012", rng.permutation(["skip", "skip", "skip", "gcn"]).tolist()))
    for start in (arch, edge):
        found = [moves.mutate(SPACE, start, rng), *moves.crossover(SPACE, start, edge, rng)]
        for other in found + moves.neighbours(SPACE, start):
            assert SPACE.illegal(other) is None
    assert (
        SPACE.from_text("0000:skip,skip,skip,gcn") not in moves.neighbours(SPACE, edge) or "gcn" in edge.values.values()
    )


# -- notation ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(links=st.sampled_from(TOPOLOGIES), operations=operation_lists)
def test_round_trips(links: str, operations: list[str]) -> None:
    arch = SPACE.from_text(text(links, operations))
    assert SPACE.illegal(arch) is None
    assert SPACE.to_text(arch) == text(links, operations)
    assert tokens.decode(SPACE, tokens.encode(SPACE, arch)) == arch
    assert Architecture.from_json(arch.to_json()) == arch


@settings(deadline=None)
@given(links=link_lists, operations=operation_lists)
def test_all_link_lists_are_read(links: str, operations: list[str]) -> None:
    """What is written is isomorphic to what was read: each node computes the same term of its inputs."""
    topology, ordered = reorder(links, operations)
    assert topology in TOPOLOGIES
    assert sorted(terms(topology, ordered)) == sorted(terms(links, operations))
    assert SPACE.to_text(SPACE.from_text(text(links, operations))) == text(topology, ordered)
    assert representative(links, operations) == representative(topology, ordered)


def terms(links: str, operations: list[str] | tuple[str, ...]) -> list[str]:
    """What every node computes, written as nested operations on x."""
    written = ["x"]
    for link, operation in zip(links, operations, strict=True):
        written.append(f"{operation}({written[int(link)]})")
    return written[1:]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("0123", "write LINKS:OP,OP,OP,OP"),
        ("0142:gcn,gcn,gcn,gcn", "no link list"),
        ("1000:gcn,gcn,gcn,gcn", "no link list"),
        ("000:gcn,gcn,gcn,gcn", "no link list"),
        ("0000:gcn,gcn,gcn", "4 operations are needed, got 3"),
        ("0000:gcn,gcn,gcn,gnc", "'gnc' is no operation"),
    ],
)
def test_malformed_notation(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.from_text(wrong)


def test_published_example() -> None:
    """[0,1,2,1][gcn,gin,fc,cheb]; the benchmark's README gives an equivalent list that is none."""
    example = SPACE.from_text("0121:gcn,gin,fc,cheb")
    assert SPACE.to_text(example) == SPACE.identity(example) == "0112:gcn,gin,cheb,fc"
    assert SPACE.identity(SPACE.from_text("0113:gcn,cheb,gin,fc")) == SPACE.identity(example)
    assert SPACE.identity(SPACE.from_text("0112:gcn,cheb,gin,fc")) != SPACE.identity(example)


# -- identity ----------------------------------------------------------------------------------------


def reduced_graph(links: str, operations: tuple[str, ...]) -> frozenset[tuple[int, int, str]]:
    """Nodes (number, input, operation) that are left when no skip can be taken out any more, one at a time."""
    nodes = {number: (int(links[number - 1]), operations[number - 1]) for number in range(1, NODES + 1)}
    while True:
        for number, (link, operation) in nodes.items():
            readers = [other for other, (source, _) in nodes.items() if source == number]
            siblings = [other for other, (source, _) in nodes.items() if source == link and other != number]
            if operation == "skip" and (readers or not siblings or link == 0):
                break
        else:
            return frozenset((number, link, operation) for number, (link, operation) in nodes.items())
        del nodes[number]
        nodes = {other: (link if source == number else source, name) for other, (source, name) in nodes.items()}


def smallest_numbering(nodes: frozenset[tuple[int, int, str]]) -> tuple[tuple[int, int, str], ...]:
    """Equal exactly for isomorphic graphs: the smallest of all renumberings."""
    numbers = [number for number, _, _ in nodes]
    return min(
        tuple(sorted((names[number], names[link], operation) for number, link, operation in nodes))
        for order in permutations(range(1, len(numbers) + 1))
        for names in [{0: 0, **dict(zip(numbers, order, strict=True))}]
    )


def test_identity_is_isomorphism() -> None:
    """Two architectures have one identity exactly when what the skips leave is the same graph; brute force."""
    identities: dict[tuple[tuple[int, int, str], ...], str] = {}
    seen: dict[str, tuple[tuple[int, int, str], ...]] = {}
    for links, operations in product(sorted(LINK_LISTS), product(("gcn", "fc", "skip"), repeat=4)):
        if set(operations) == {"skip"}:
            continue
        brute = smallest_numbering(reduced_graph(links, operations))
        identity = text(*representative(links, operations))
        assert identities.setdefault(brute, identity) == identity
        assert seen.setdefault(identity, brute) == brute
    assert len(seen) > 100


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("0123:gcn,skip,fc,gat", "0123:skip,gcn,fc,gat", True),  # skips in a chain
        ("0123:gcn,fc,gat,skip", "0123:skip,gcn,fc,gat", True),  # a skip that alone leads to the output
        ("0000:gcn,skip,fc,gat", "0111:skip,fc,gcn,gat", True),  # raw features never reach the output
        ("0111:gcn,skip,fc,gat", "0122:skip,gcn,fc,gat", False),  # joins node 1 to the output beside its readers
        ("0011:gcn,fc,gat,gin", "0012:gcn,fc,gat,gin", False),
        ("0012:gcn,fc,gat,gin", "0012:fc,gcn,gin,gat", True),
        ("0012:gcn,fc,gat,gin", "0012:gcn,fc,gin,gat", False),
        ("0012:gcn,gcn,fc,fc", "0122:skip,gcn,fc,fc", False),  # two nodes with one operation have two weights
    ],
)
def test_which_architectures_are_equal(one: str, other: str, equal: bool) -> None:
    same = SPACE.identity(SPACE.from_text(one)) == SPACE.identity(SPACE.from_text(other))
    assert same == equal


@settings(max_examples=15, deadline=None)
@given(links=link_lists, operations=operation_lists)
def test_equal_architectures_are_equal_functions(links: str, operations: list[str]) -> None:
    """Weights copied between two members of a class: the same outputs and costs."""
    import torch

    one, other = SPACE.from_text(text(links, operations)), SPACE.from_text(text(*representative(links, operations)))
    first, second = SPACE.build(one, SMALL, NARROW).eval(), SPACE.build(other, SMALL, NARROW).eval()
    second.load_state_dict(first.state_dict())
    inputs = graph(SMALL)
    assert torch.equal(first(*inputs), second(*inputs))
    assert SPACE.costs(one, SMALL, NARROW) == SPACE.costs(other, SMALL, NARROW)
    assert SPACE.graph(one) == SPACE.graph(other)


def test_graph() -> None:
    drawn = SPACE.graph(SPACE.from_text("0121:gcn,gin,fc,cheb"))
    assert drawn.nodes == ("input", "gcn", "gin", "cheb", "fc", "output")
    assert set(drawn.edges) == {(0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (4, 5)}
    assert not drawn.fixed_topology


# -- the benchmark's tables --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "nasbench_graph.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def row_text(row: dict[str, str]) -> str:
    return text(row["link"], [row[f"op{node}"] for node in range(1, 5)])


def test_identities_are_the_rows(table: list[dict[str, str]]) -> None:
    assert len(table) == 26206
    for row in table:
        assert SPACE.identity(SPACE.from_text(row_text(row))) == row_text(row)


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_map_of_all_genotypes(shared_data: Path, table: list[dict[str, str]], every: int) -> None:
    rows = [row_text(row) for row in table]
    index = numpy.load(shared_data / "nasbench_graph_index.npz", allow_pickle=False)
    checked = 0
    for links, expected in zip(index["links"], index["row"].reshape(24, -1).tolist(), strict=True):
        assert "".join(map(str, links)) in LINK_LISTS
        for operations, row in list(zip(product(OPERATIONS, repeat=NODES), expected, strict=True))[::every]:
            assert (row == -1) == (set(operations) == {"skip"})
            if row != -1:
                topology, ordered = reorder(links, operations)
                assert text(*representative(topology, ordered)) == rows[row]
                checked += 1
    assert checked == 157440 if every == 1 else checked > 17_000


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("column", "task"), [("cora_params_m", CORA), ("citeseer_params_m", CITESEER)])
def test_parameters_of_all_rows(table: list[dict[str, str]], column: str, task: Task, every: int) -> None:
    """The table holds five significant digits."""
    for row in table[::every]:
        params = SPACE.costs(SPACE.from_text(row_text(row)), task, FULL)["params"]
        assert float(f"{params / 1e6:.5g}") == pytest.approx(float(row[column]), rel=1e-9), row_text(row)
    for row in table[:: len(table) // 12]:
        params = sum(p.numel() for p in build(row_text(row), task, FULL).parameters())
        assert params == SPACE.costs(SPACE.from_text(row_text(row)), task, FULL)["params"]


# -- networks and costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notation", "params"),
    [
        ("0123:skip,skip,gcn,gcn", 502_535),
        ("0000:gat,gat,gat,gat", 1_736_711),
        ("0121:gcn,gin,fc,cheb", 765_191),
    ],
)
def test_parameters_on_cora(notation: str, params: int) -> None:
    assert SPACE.costs(SPACE.from_text(notation), CORA, FULL)["params"] == params
    assert sum(p.numel() for p in build(notation, CORA, FULL).parameters()) == params


@pytest.mark.parametrize(
    ("operation", "raw", "hidden"),
    [
        ("gcn", 367_104, 65_792),
        ("gin", 367_104, 65_792),
        ("fc", 367_104, 65_792),
        ("gat", 367_616, 66_304),
        ("cheb", 733_952, 131_328),
        ("sage", 733_952, 131_328),
        ("graph", 733_952, 131_328),
        ("arma", 799_488, 196_864),
        ("skip", 0, 0),
    ],
)
def test_parameters_of_operations(operation: str, raw: int, hidden: int) -> None:
    assert sum(p.numel() for p in GRAPH.operator(operation).make(1433, 256).parameters()) == raw
    assert sum(p.numel() for p in GRAPH.operator(operation).make(256, 256).parameters()) == hidden


def test_costs_agree_with_built_networks() -> None:
    """To the unit, on a graph without self-loops."""
    import torch

    from search_spaces.counter import macs
    from search_spaces.operators.graph.sample import ring

    rng = numpy.random.default_rng(0)
    inputs = torch.ones(20, 12), ring(20, 40)
    for _ in range(60):
        arch = moves.sample(SPACE, rng)
        model = SPACE.build(arch, SMALL, NARROW)
        counted = {"params": sum(p.numel() for p in model.parameters()), "macs": macs(model, inputs)}
        assert SPACE.costs(arch, SMALL, NARROW) == counted


def test_messages_are_counted_per_edge_and_feature() -> None:
    for operation, extra in (("gcn", 20), ("gat", 60), ("gin", 0), ("sage", 0), ("cheb", 0), ("arma", 0), ("graph", 0)):
        assert operation_macs(operation, 12, 8, nodes=20, edges=40)[1] == (40 + extra) * 8
    assert operation_macs("fc", 12, 8, nodes=20, edges=40) == (20 * 12 * 8, 0)


def test_costs_need_the_size_of_the_graph() -> None:
    task = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=3)
    with pytest.raises(UsageError, match="nodes and edges"):
        SPACE.costs(SPACE.from_text("0000:gcn,gcn,gcn,gcn"), task, NARROW)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS[:-1])
def test_layers_compute_what_the_library_computes(operation: str, sparse: bool) -> None:
    """Projecting before propagating is the same function; self-loops and a node without edges included."""
    import torch
    from torch_geometric import nn as geometric

    torch.manual_seed(0)
    x, edges = torch.randn(9, 6), torch.tensor([[0, 1, 2, 3, 3, 4, 5, 6, 0, 2], [1, 0, 3, 3, 2, 5, 4, 6, 2, 7]])
    ours = GRAPH.operator(operation).make(6, 4)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.uniform_(-1, 1)
    library: torch.nn.Module
    if operation == "gin":
        library = geometric.GINConv(torch.nn.Linear(6, 4))
        weights = {"nn.weight": ours.linear.weight, "nn.bias": ours.bias, "eps": torch.zeros(1)}
    elif operation in ("sage", "graph"):
        library = geometric.SAGEConv(6, 4) if operation == "sage" else geometric.GraphConv(6, 4)
        near, own = ("lin_l", "lin_r") if operation == "sage" else ("lin_rel", "lin_root")
        weights = {f"{near}.weight": ours.neighbours.weight, f"{near}.bias": ours.bias}
        weights[f"{own}.weight"] = ours.itself.weight
    elif operation == "cheb":
        library = geometric.ChebConv(6, 4, K=2)
        weights = {"lins.0.weight": ours.itself.weight, "lins.1.weight": ours.neighbours.weight, "bias": ours.bias}
    elif operation == "arma":
        library = geometric.ARMAConv(6, 4)
        weights = {"init_weight": ours.neighbours.weight.T[None], "root_weight": ours.itself.weight.T[None, None]}
        weights |= {"bias": ours.bias.view(1, 1, 1, -1), "weight": ours.recurrent[None, None]}
    else:
        classes = {"gat": lambda: geometric.GATConv(6, 2, heads=2), "gcn": lambda: geometric.GCNConv(6, 4)}
        library = classes.get(operation, lambda: torch.nn.Linear(6, 4))()
        weights = ours.state_dict()
    library.load_state_dict(weights)
    arguments = () if operation == "fc" else (edges,)
    given = x.to_sparse() if sparse else x
    assert torch.allclose(ours(given, *arguments), library(x, *arguments), atol=1e-6)


@pytest.mark.parametrize("operation", OPERATIONS[:-1])
def test_forward_and_gradients(operation: str) -> None:
    import torch

    for notation in (f"0123:{operation},fc,{operation},skip", f"0011:{operation},skip,skip,{operation}"):
        model = build(notation, SMALL, NARROW)
        features, edges = graph(SMALL)
        features.requires_grad_()
        output = model(features, edges)
        assert output.shape == (20, 3)
        output.square().sum().backward()
        assert features.grad is not None
        assert features.grad.abs().sum() > 0
        unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        # Nodes that read raw features do not normalise, and one ARMA layer has no recurrence.
        assert all(name.startswith("norms.") or name.endswith(".recurrent") for name in unused)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@settings(max_examples=10, deadline=None)
@given(features=st.integers(1, 40), classes=st.integers(1, 12), hidden=st.sampled_from([2, 6, 32]), arch=st.integers(0))
def test_builds_for_any_task(features: int, classes: int, hidden: int, arch: int) -> None:
    task = Task(kind=NODE_CLASSIFICATION, input_shape=(features,), outputs=classes, nodes=11, edges=17)
    sampled = moves.sample(SPACE, numpy.random.default_rng(arch))
    model = SPACE.build(sampled, task, GraphSize.preset("search", hidden=hidden)).eval()
    assert model(*graph(task)).shape == (11, classes)


def test_another_graph_goes_through_the_same_network() -> None:
    """Nothing about a graph is remembered: the second answer is that of a fresh copy."""
    import copy

    import torch

    model = build("0012:gcn,cheb,arma,sage", SMALL, NARROW).eval()
    fresh = copy.deepcopy(model)
    model(*graph(SMALL))
    other = graph(SMALL.model_copy(update={"nodes": 31, "edges": 90}), seed=1)
    assert torch.equal(model(*other), fresh(*other))


def test_sparse_features_train_like_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout, multiplying a bag of words as a sparse matrix changes nothing but the time."""
    import torch

    from search_spaces.layers import graph_batch as gnn

    words, edges = graph(SMALL)
    words = (words > 2.0).float()
    assert 0 < words.mean() < gnn.SPARSE_BELOW
    assert gnn.GraphBatch.of(edges, words).sparse(words) is not None
    size = GraphSize.preset("search", hidden=8, dropout=0.0)
    results = []
    for below in (gnn.SPARSE_BELOW, 0.0):
        monkeypatch.setattr(gnn, "SPARSE_BELOW", below)
        model = build("0012:gat,cheb,gin,fc", SMALL, size)
        output = model(words, edges)
        output.square().sum().backward()
        results.append((output, [p.grad for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_dropout_keeps_the_mean() -> None:
    import torch

    from search_spaces.layers.dropout import drop

    torch.manual_seed(0)
    ones = torch.ones(400, 500)
    dropped = drop(ones, 0.7)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop(ones, 0.0), ones)


@pytest.mark.parametrize("field", [{"hidden": 0}, {"hidden": 7}, {"dropout": 1.0}, {"width": 3}])
def test_wrong_sizes(field: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        GraphSize.preset("search", **field)
