"""Every operator of the catalogue keeps its role's contract, and the contract sees what it is there for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import onnxruntime
import pytest
import torch

from nas_core.errors import NotFoundError, UsageError
from nas_core.relax import Style
from nas_core.task import graph_task
from search_spaces.counter import macs, params
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures
from search_spaces.nasbench_graph.costs import FORMULAS, operator_costs
from search_spaces.operators.conv import CELL, EDGE, RECTIFIED
from search_spaces.operators.conv import suite as conv
from search_spaces.operators.graph import AGGREGATOR, ENCODING, GRAPH, HEAD, READOUT, RELATION, REWIRING
from search_spaces.operators.graph.probe import EDGE_DIM, WIDTH, Probe, trait
from search_spaces.operators.graph.sample import counted
from search_spaces.operators.graph.suite import check, samples
from search_spaces.operators.operator import Role
from training.export.formats import Signature
from training.export.write import onnx_bytes, trace

IDLE = {"arma": {"recurrent"}}  # what one layer has no use for
TOP = """
    import torch
    from torch import nn
    from torch_geometric.nn import MessagePassing

"""


def own(folder: Path, body: str, name: str = "Mine", file: str = "my_ops.py") -> str:
    """The reference of an operator in a file."""
    (folder / file).write_text(dedent(TOP) + dedent(body))
    return f"{folder / file}:{name}"


GOOD = """
    class Mine(MessagePassing):
        def __init__(self, width, hidden, hops=1):
            super().__init__(aggr="max")
            self.linear, self.hops = nn.Linear(2 * width, hidden), hops

        def forward(self, x, edge_index):
            near = x
            for _ in range(self.hops):
                near = self.propagate(edge_index, x=near)
            return self.linear(torch.cat([x, near], 1))
"""


ROLES = (GRAPH, AGGREGATOR, ENCODING, REWIRING, READOUT, HEAD, RELATION)
ENTRIES = [(role, name) for role in ROLES for name in role.table]


def named(one: Any) -> str:
    return str(getattr(one, "name", one))


@pytest.mark.parametrize(("role", "name"), ENTRIES, ids=named)
def test_entries_of_the_catalogue_keep_their_contract(role: Role, name: str) -> None:
    assert list(check(role.operator(name))) == []


@pytest.mark.parametrize("edge_dim", [None, EDGE_DIM], ids=["nodes", "edges"])
@pytest.mark.parametrize(("role", "name"), ENTRIES, ids=named)
def test_all_weights_of_the_catalogue_learn(role: Role, name: str, edge_dim: int | None) -> None:
    torch.manual_seed(0)
    probe = Probe(role.operator(name), edge_dim=edge_dim)
    weights = {name.rpartition("operator.")[2]: weight for name, weight in probe.named_parameters()}
    if weights:
        probe(torch.randn(8, WIDTH), torch.randint(8, (2, 30))).square().sum().backward()
    assert {name for name, weight in weights.items() if weight.grad is None} == IDLE.get(name, set())


IN_THE_GATE = ("gat", "std", "random-walk", "virtual-node", "max", "mlp", "sub")  # one of each role


@pytest.mark.parametrize(
    ("role", "name"),
    [
        pytest.param(role, name, marks=() if name == IN_THE_GATE[ROLES.index(role)] else pytest.mark.slow)
        for role, name in ENTRIES
    ],
    ids=named,
)
def test_onnx_of_the_catalogue(role: Role, name: str) -> None:
    """With nodes, edges and graphs free; or refused with the reason."""
    operator = role.operator(name)
    for edge_dim in (None, EDGE_DIM) if getattr(operator.kind, "takes_edges", False) else (None,):
        probe = Probe(operator, edge_dim=edge_dim).eval()
        given = samples(probe)
        example = given["several graphs"]
        free = Signature(("x", "edge_index", "counts"), ({0: "nodes"}, {1: "edges"}, {0: "graphs"}))
        if (reason := trait(probe, "why_not_exportable")) is not None:
            with pytest.raises(UsageError, match=re.escape(reason)):
                trace(probe, example, free)
            continue
        session = onnxruntime.InferenceSession(onnx_bytes(trace(probe, example, free), free, {}))
        for inputs in given.values():
            fed = dict(zip(free.inputs, (value.numpy() for value in inputs), strict=True))
            (answer,) = session.run(None, {one.name: fed[one.name] for one in session.get_inputs()})
            torch.testing.assert_close(torch.from_numpy(answer), probe(*inputs).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(FORMULAS))
@pytest.mark.parametrize(("width", "hidden", "nodes", "edges"), [(7, 4, 10, 33), (6, 6, 5, 20)])
def test_formulas_of_nasbench_graph_are_the_counter(name: str, width: int, hidden: int, nodes: int, edges: int) -> None:
    operator = GRAPH.operator(name)
    sizes = (width if name != "skip" else hidden, hidden, nodes, edges)
    assert operator_costs(operator, *sizes) == counted(operator, *sizes)


KEEPS = {"skip_connect", ("edge operation", "avg_pool_3x3")}  # the resolution: made at stride 1 alone
MAPS = [(role, name) for role in (EDGE, CELL, RECTIFIED) for name in role.table]


@pytest.mark.parametrize(("role", "name"), MAPS, ids=lambda one: getattr(one, "name", one))
def test_operations_on_maps_keep_their_contract(role: Role, name: str) -> None:
    strides = (1,) if KEEPS & {name, (role.name, name)} else (1, 2)
    assert list(conv.check(role.operator(name), strides)) == []
    if len(strides) == 1:
        with pytest.raises(ValueError, match="stride 2"):
            conv.made(role.operator(name), 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CELL.table)
def test_formulas_of_darts_are_the_counter(name: str, stride: int) -> None:
    from search_spaces.darts.network import operation
    from search_spaces.darts.space import operation_costs

    made = conv.OnMap(CELL.operator(name), operation(name, 4, stride, Style.STANDALONE, None))
    area = math.prod(-(-side // stride) for side in conv.SHAPE)
    counted = (params(made), macs(made, (torch.ones(1, 4, *conv.SHAPE),)))
    assert operation_costs(name, 4, stride, area) == counted


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", RECTIFIED.table)
def test_formulas_of_nasnet_are_the_counter(name: str, stride: int) -> None:
    from search_spaces.nasnet.space import operation_costs

    assert operation_costs(name, 4, stride, conv.SHAPE) == conv.counted(RECTIFIED.operator(name), stride)


def test_what_operations_on_maps_do_wrong_is_found() -> None:
    """A skip that is said to add nothing, and one that halves."""
    from search_spaces.operators.conv.skip import Skip

    class Bent(Skip):
        zero = True

    class Halved(Skip):
        def forward(self, node: Any) -> torch.Tensor:
            return node.value[:, :, ::2]

    for kind, finding in ((Bent, "zero is True, but its answer"), (Halved, r"answers \(3, 4, 4, 6\) instead of")):
        operator = CELL.operator("skip_connect")
        vars(operator)["kind"] = kind
        assert re.search(finding, next(conv.check(operator, (1,))))


def test_one_of_ones_own_with_options(tmp_path: Path) -> None:
    one, two = GRAPH.operators([own(tmp_path, GOOD), own(tmp_path, GOOD) + "(hops=2)"])
    assert (one.label, two.label, one.own, two.own) == ("Mine", "Mine(hops=2)", True, True)
    assert [*check(one), *check(two)] == []
    assert counted(one, 6, 4, 10, 30) == (12 * 4 + 4, 10 * 12 * 4 + 30 * 6)
    assert counted(two, 6, 4, 10, 30) == (12 * 4 + 4, 10 * 12 * 4 + 2 * 30 * 6)


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (GOOD.replace("nn.Linear(2 * width, hidden)", "nn.Linear(2 * width, 3)"), r"answers \(12, 3\) instead"),
        (GOOD.replace("return self", "return x, self"), "answers tuple instead"),
        (GOOD.replace("def __init__", "skip = True\n\n        def __init__"), "does not hand its input on"),
        (GOOD.replace("def __init__", "zero = True\n\n        def __init__"), "but it adds something"),
        (GOOD.replace("cat([x, near]", "cat([x.detach(), near.detach()]"), "its input gets no gradient"),
        (GOOD.replace("self.linear(", "self.linear.requires_grad_(False)("), "none of its parameters gets a gradient"),
        (GOOD.replace("x=near)", "x=near) + torch.rand(1)"), "two passes in evaluation mode differ"),
        (GOOD.replace("x=near)", "x=near) + torch.arange(len(x))[:, None]"), "renumbering the nodes"),
        (GOOD.replace("near], 1)", "near / near.sum(1, True)], 1)"), "is not finite"),
        (GOOD.replace("x=near)", "x=near) * len(edge_index.unique())"), "torch.export cannot trace it"),
        (GOOD.replace("near = x", "near = x if x.sum() > 9 else -x"), "torch.export cannot trace it"),
        (
            GOOD.replace("near = x", "near = x if x.sum() > 9 else -x").replace(
                "def __init__", 'why_not_exportable = "because it looks"\n\n        def __init__'
            ),
            None,
        ),
        (GOOD.replace("forward(self, x, edge_index)", "forward(self, x)"), "raises TypeError"),
        (GOOD.replace("near = x\n", "near = x - x.mean(0)\n"), "graphs in a batch are answered otherwise"),
        (
            GOOD.replace("x=near)", "x=near) + (edge_index[0] * torch.arange(edge_index.size(1))).sum()"),
            "another order of the edges changes",
        ),
        (GOOD.replace("near = x\n", "near = x if x.dtype == torch.float32 else 2 * x\n"), "float64 has another"),
        (GOOD.replace("def __init__", "stochastic = True\n\n        def __init__"), "but two passes are the same"),
        (GOOD.replace("def __init__", "ordered = 3\n\n        def __init__"), "ordered is 3, which is no reason"),
        (
            GOOD.replace("def __init__", "ordered = 'so'\n\n        def __init__"),
            "says that it is ordered, but neither",
        ),
        (GOOD + "\n        def macs(self, nodes, edges):\n            return 3\n", "costs 3 MACs, and 756 are counted"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, body: str, finding: str | None) -> None:
    found = list(check(GRAPH.operator(own(tmp_path, body))))
    if finding is None:
        assert found == []
    else:
        assert any(re.search(finding, each) for each in found), found


def test_errors(tmp_path: Path) -> None:
    good = own(tmp_path, GOOD)
    other = own(tmp_path, GOOD, file="other_ops.py")
    own(tmp_path, "function = len\nthing = 3", file="wrong.py")
    for given, message in (
        (("gcnn",), "unknown graph operator 'gcnn'; did you mean 'gcn'"),
        (("gcn", "gcn"), "'gcn' and 'gcn' are both called 'gcn'"),
        ((good, other), "both called 'Mine'; rename one"),
        ((), "list them, for example"),
        ("gcn", "graph operators are 'gcn'; list them"),
        ((3,), "graph operator 3 is no name"),
        ((f"{good}(hop=2)",), r"is made by \(width, hidden\) and its options: got an unexpected keyword"),
        ((f"{tmp_path / 'wrong.py'}:thing",), "is a int; name a class of nn.Module, made by"),
        ((f"{tmp_path / 'wrong.py'}:function",), "name a class of nn.Module"),
        ((f"{tmp_path / 'my_ops.py'}",), "names a file alone"),
    ):
        with pytest.raises(UsageError, match=message):
            GRAPH.operators(given)
    with pytest.raises(NotFoundError, match="there is no file"):
        GRAPH.operators((f"{tmp_path / 'absent.py'}:Mine",))


def test_a_table_may_give_options() -> None:
    role = Role("layer", "nas.none", ("inputs", "outputs"), {"plain": "torch.nn:Linear(bias=False)"})
    made = role.operator("plain").make(3, 4)
    assert isinstance(made, torch.nn.Linear)
    assert made.bias is None
    assert role.operator("plain(bias=True)").make(3, 4).bias is not None


def test_one_that_takes_no_sparse_features_gets_none(tmp_path: Path) -> None:
    """A bag of words is sparse for the operators of the catalogue in training."""
    from search_spaces.nasbench_graph.space import NasBenchGraph

    body = GOOD.replace("near = x\n", "near = x\n            assert type(x) is torch.Tensor\n")
    space = NasBenchGraph(("gcn", "skip", own(tmp_path, body)))
    words, edges = (torch.rand(40, 200) < 0.01).float(), torch.randint(40, (2, 60))
    task = graph_task(200, 3, nodes=40, edges=60)
    for notation in ("0000:gcn,Mine,gcn,Mine", "0123:skip,Mine,gcn,gcn"):
        network = space.build(space.from_text(notation), task, space.Size(hidden=4)).train()
        assert network(words, edges).shape == (40, 3)
    plain = space.build(space.from_text("0000:gcn,gcn,gcn,gcn"), task, space.Size(hidden=4)).train()
    assert isinstance(plain.drop_features(words, GraphBatch.of(edges, words)), SparseFeatures)


def test_the_benchmarks_operators_in_another_order_are_its_rows() -> None:
    from search_spaces.nasbench_graph.space import OPERATIONS, NasBenchGraph

    benchmark, other = NasBenchGraph(), NasBenchGraph(OPERATIONS[::-1])
    third = NasBenchGraph((*OPERATIONS, "appnp"))
    assert len({benchmark.name, other.name, third.name}) == 3
    assert (benchmark.name, NasBenchGraph(OPERATIONS[::-1]).name) == ("nasbench_graph", other.name)
    for notation in ("0012:gcn,fc,gat,gin", "0122:skip,gin,gcn,gat", "0111:sage,cheb,arma,graph"):
        assert benchmark.identity(benchmark.from_text(notation)) == other.identity(other.from_text(notation))


@pytest.mark.parametrize("name", ["SAGEConv", "LEConv", "TAGConv(K=2)"])
def test_layers_of_the_library_are_operators(name: str) -> None:
    assert list(check(GRAPH.operator(f"torch_geometric.nn:{name}"))) == []


def test_an_export_says_why_not(tmp_path: Path) -> None:
    from training.export.formats import signature_of

    body = GOOD.replace("def __init__", 'why_not_exportable = "because it looks"\n\n        def __init__')
    module = GRAPH.operator(own(tmp_path, body)).make(6, 4)
    with pytest.raises(UsageError, match="Mine cannot be traced, because it looks"):
        trace(module, (torch.rand(4, 6), torch.zeros(2, 3, dtype=torch.long)), signature_of(graph_task(6, 4, 4, 3)))
