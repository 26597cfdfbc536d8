"""GNAS: published counts, one parent each, gates, how far a network sees, networks against straight lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.relax import FixedPicker, Style
from nas_core.seeds import generator
from nas_core.task import GRAPH_CLASSIFICATION, graph_task
from search_spaces.counter import MacCounter
from search_spaces.gnas.network import Dense, Sparse
from search_spaces.gnas.space import CLUSTER, NONE, Gnas
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.supernet.supernet import Supernet

SPACE = Gnas()
TASK = graph_task(7, 6, 12, 30)
GRAPHS = graph_task(7, 6, 12, 30, kind=GRAPH_CLASSIFICATION, level="graph")
PATH = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]])


def drawn(space: Gnas, count: int) -> list[Architecture]:
    return [moves.sample(space, generator("gnas", number)) for number in range(count)]


def inputs(nodes: int = 12, edges: int = 30) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(nodes, 7, generator=random)
    return x, torch.randint(0, nodes, (2, edges), generator=random)


def test_the_published_network_has_as_many_parameters_as_published() -> None:
    """385,356 of the program's 425,116: without eight linear maps before sums, which it does not use."""
    network = SPACE.build(SPACE.named["cluster"], TASK, SPACE.Size())
    parameters = {
        name: sum(one.numel() for one in module.parameters())
        for name, module in (("embed", network.embed), ("head", network.head), *_numbered(network.layers))
    }
    pools = 2 * 4_970  # of each cell
    assert parameters == {
        "embed": 490,
        "head": 15_336,
        **dict(zip("0123", (109_830 - pools, 94_850 - pools, 94_850 - pools, 109_760 - pools), strict=True)),
    }
    assert sum(parameters.values()) == 385_356 == 425_116 - 4 * pools
    assert SPACE.to_text(SPACE.named["cluster"]) == CLUSTER


def _numbered(layers: Any) -> list[tuple[str, nn.Module]]:
    return [(str(number), layer) for number, layer in enumerate(layers)]


@pytest.mark.parametrize(("vertices", "cells"), [(1, 36), (2, 10_368), (3, 7_558_272), (4, 10_319_560_704)])
def test_so_many_cells_and_mixtures(vertices: int, cells: int) -> None:
    space = Gnas(layers=1, vertices=vertices)
    assert math.prod(len(choice.options) for choice in space.choices) == cells
    if vertices == 1:
        assert moves.size(space, 100) == cells
    groups = Supernet(space, TASK, space.Size(hidden=2)).groups
    assert len(groups) == vertices * (vertices + 1) // 2 + vertices + vertices**2
    assert {len(group.options) for group in groups.values()} == {4}
    if vertices in (2, 3, 4):
        assert len(groups) == {2: 9, 3: 18, 4: 30}[vertices]


def test_a_supernets_cell_has_as_many_parameters_as_published() -> None:
    """300,300 and 431,640, less one unused map per sum."""
    for vertices, width, published in ((2, 70, 300_300), (3, 60, 431_640)):
        space = Gnas(layers=1, vertices=vertices)
        [cell] = Supernet(space, TASK, space.Size(hidden=width)).network.layers
        unused = vertices * (width + 1) * width
        assert sum(parameter.numel() for parameter in cell.parameters()) == published - unused


def test_every_vertex_has_one_parent() -> None:
    space = Gnas(layers=3, vertices=3)
    for arch in drawn(space, 50):
        for layer, cell in enumerate(space.cells(arch)):
            assert len(cell) == 9
            for number, (source, operation) in enumerate(cell, 1):
                assert operation != NONE
                if number <= 3:
                    assert 0 <= source < number
                elif number <= 6:
                    assert source == number - 3
                else:
                    assert 3 < source <= 6
            taken = {name: one for name, one in space.assignment(arch).items() if name.startswith(f"cell{layer}/")}
            assert sum(one is not None for one in taken.values()) == 9
        assert space.from_text(space.to_text(arch)) == arch


@pytest.mark.parametrize("gate", [Dense, Sparse])
def test_gates_without_weights_halve(gate: type[Any]) -> None:
    x, layer = torch.randn(5, 4), torch.randn(5, 4)
    graph = GraphBatch(torch.zeros(2, 0, dtype=torch.long), 5)
    made = gate(4)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "gate.weight" or gate is Dense:  # whatever `a` is
                parameter.zero_()
    assert torch.equal(made(x, layer, graph), x / 2)


def test_a_sparse_gate_is_one_number_per_node_and_a_dense_one_is_not() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(5, 4), torch.randn(5, 4)
    graph = GraphBatch(torch.zeros(2, 0, dtype=torch.long), 5)
    ratio = {gate: gate(4)(x, layer, graph) / x for gate in (Sparse, Dense)}
    assert torch.allclose(ratio[Sparse], ratio[Sparse][:, :1].expand(-1, 4))
    assert len(ratio[Sparse][:, 0].unique()) == 5
    assert not torch.allclose(ratio[Dense], ratio[Dense][:, :1].expand(-1, 4))


def _jacobian(aggregate: str, layers: int) -> Tensor:
    """Which node's answer depends on which node's features, on a path of six nodes."""
    space = Gnas(layers=layers)
    cell = f"dense(0) identity(0) {aggregate} identity dense(3) sparse(4)"
    torch.manual_seed(0)
    network = space.build(space.from_text(" / ".join([cell] * layers)), TASK, space.Size(hidden=6)).double().eval()
    with torch.no_grad():  # no rectifier may be shut everywhere
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.5)
    x = torch.randn(6, 7, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(lambda values: network(values, PATH).sum(1), x)
    return found.abs().sum(2) > 0


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_network_sees_one_hop_per_layer_that_aggregates(layers: int) -> None:
    nodes = torch.arange(6)
    near = (nodes[:, None] - nodes).abs()
    assert torch.equal(_jacobian("sum", layers), near <= layers)
    assert torch.equal(_jacobian("identity", layers), near == 0)


def _plain(network: Any, space: Gnas, arch: Architecture, x: Tensor, edge_index: Tensor, slope: float) -> Tensor:
    """The network in straight lines, edge by edge, of its weights alone."""
    weights: Mapping[str, Tensor] = dict(network.state_dict())
    source, target = edge_index

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].t() + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, value: Tensor) -> Tensor:
        scaled = (value - weights[f"{name}.running_mean"]) / (weights[f"{name}.running_var"] + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def neighbours(values: Tensor, how: str) -> Tensor:
        found = torch.zeros_like(values)
        for node in range(len(values)):
            sent = values[source[target == node]]
            if len(sent):
                found[node] = {"sum": sent.sum(0), "mean": sent.mean(0), "max": sent.amax(0)}[how]
        return found

    state = linear("embed", x)
    for layer, cell in enumerate(space.cells(arch)):
        states = [state]
        for place, (read, operation) in enumerate(cell):
            name, value = f"layers.{layer}.operations.edge{read}to{place + 1}", states[read]
            both = torch.cat([value, state], 1)
            if operation == "dense":
                value = linear(f"{name}.operation.gate", both).sigmoid() * value
            elif operation == "sparse":
                hidden = linear(f"{name}.operation.hidden", both).clamp(min=0)
                value = linear(f"{name}.operation.gate", hidden).sigmoid() * value
            elif operation == "sum":
                value = neighbours(value, "sum")
            elif operation in ("mean", "max"):
                value = neighbours(linear(f"{name}.operation.pool", value).clamp(min=0), operation)
            if operation != "identity":
                value = norm(f"{name}.norm", linear(f"{name}.linear", value)).clamp(min=0)
            states.append(value)
        fused = norm(f"layers.{layer}.norm", linear(f"layers.{layer}.fuse", torch.cat(states[1:], 1)))
        state = state + torch.where(fused > 0, fused, slope * fused)
    for place in range(3):
        state = linear(f"head.hidden.{place}", state).clamp(min=0)
    return linear("head.last", state)


@pytest.mark.parametrize("style", list(Style))
def test_networks_are_those_of_straight_lines(style: Style) -> None:
    space = Gnas(layers=2, vertices=3)
    x, edge_index = inputs()
    for number, arch in enumerate(drawn(space, 6)):
        torch.manual_seed(number)
        network = space.network(FixedPicker(space.assignment(arch), style), TASK, space.Size(hidden=5))
        network(x, edge_index)  # running statistics of its own
        network.eval()
        wanted = _plain(network, space, arch, x, edge_index, 0.1 if style == Style.SUPERNET else 0.01)
        torch.testing.assert_close(network(x, edge_index), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", [TASK, GRAPHS], ids=lambda task: task.kind)
def test_costs_are_those_of_the_built_network(task: Any) -> None:
    space, size = Gnas(layers=2, vertices=3), Gnas.Size(hidden=5)
    x, edge_index = inputs()
    more = (torch.tensor([12]),) if task is GRAPHS else ()
    for arch in drawn(space, 10):
        network = space.build(arch, task, size)
        with MacCounter(network) as counter:
            network(x, edge_index, *more)
        counted = {"params": sum(parameter.numel() for parameter in network.parameters()), "macs": counter.macs}
        assert space.costs(arch, task, size) == counted


def test_a_batch_of_graphs_is_its_graphs_one_by_one() -> None:
    space = Gnas(layers=2)
    x, edge_index = inputs(12, 30)
    other, edges = inputs(5, 9)
    for arch in drawn(space, 3):
        network = space.build(arch, GRAPHS, space.Size(hidden=5)).eval()
        both = network(torch.cat([x, other]), torch.cat([edge_index, edges + 12], 1), torch.tensor([12, 5]))
        alone = [network(x, edge_index, torch.tensor([12])), network(other, edges, torch.tensor([5]))]
        torch.testing.assert_close(both, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_renumbered_vertices_are_one_candidate() -> None:
    space = Gnas(layers=1)
    one = space.from_text("dense(0) sparse(0) sum max identity(3) dense(4)")
    for same in (
        "sparse(0) dense(0) max sum dense(3) identity(4)",
        "dense(0) sparse(0) sum max dense(4) identity(3)",
    ):
        assert space.identity(space.from_text(same)) == space.identity(one)
    for other in (
        "dense(0) sparse(1) sum max identity(3) dense(4)",
        "dense(0) sparse(0) sum max identity(4) dense(3)",
        "dense(0) sparse(0) max sum identity(3) dense(4)",
    ):
        assert space.identity(space.from_text(other)) != space.identity(one)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dense(0)", "cell 0 has 1 vertices, not 6"),
        ("dense(0) sparse(2) sum sum dense(3) sparse(3)", r"vertex 2 of cell 0 reads 2, and may read \(0, 1\)"),
        ("dense(0) sum(0) sum sum dense(3) sparse(3)", "write one of identity, sparse, dense"),
        ("dense(0) none(0) sum sum dense(3) sparse(3)", "write one of identity, sparse, dense"),
        ("dense(0) dense(0) sum(1) sum dense(3) sparse(3)", "is written"),
    ],
)
def test_texts_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Gnas(layers=1).from_text(text)


def test_encodings_join_the_features_of_nodes() -> None:
    """The same weights answer the same where the features of the data are those of both, as batches of graphs too."""
    (x, edge_index), size = inputs(), Gnas.Size(hidden=6)
    space = Gnas(encodings=("random-walk(features=3)",))
    assert space.name != SPACE.name
    assert space.costs(space.named["cluster"], TASK, size) != SPACE.costs(SPACE.named["cluster"], TASK, size)
    network: Any = space.build(space.named["cluster"], TASK, size).eval()
    plain = SPACE.build(SPACE.named["cluster"], graph_task(7 + 3, 6, 12, 30), size).eval()
    plain.load_state_dict(network.state_dict())
    (encoding,) = network.encodings
    with torch.no_grad():
        wide = torch.cat([x, encoding(GraphBatch(edge_index, 12))], 1)
        torch.testing.assert_close(network(x, edge_index), plain(wide, edge_index))
        assert not torch.allclose(network(x, edge_index), plain(torch.cat([x, torch.zeros(12, 3)], 1), edge_index))
