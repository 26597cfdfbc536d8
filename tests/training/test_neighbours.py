"""Samples of a graph: what is drawn, that all neighbours are the whole graph, and trainings that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_core import moves, refs
from nas_core.batch import HALVES
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.task import graph_task
from search_spaces import BUILTIN, GROUP
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import ENCODING, GRAPH
from search_spaces.operators.graph.made import encoded, step
from training import recipe as recipes
from training.data.loading import Loading
from training.data.neighbours import Neighbours
from training.data.node_numbers import node_number_source
from training.data.source import GraphSource, graph_source
from training.data.split import Split
from training.fit import fit

NODES, WIDTH = 300, 6


def edges_of(nodes: int = NODES) -> np.ndarray[Any, Any]:
    """A ring whose edges go both ways, with a hub, directed shortcuts, loops, a repeated edge and an isolated node."""
    number = np.arange(nodes - 2)
    both = np.stack([number, (number + 1) % len(number)])
    hub = np.stack([np.arange(0, 60, 2), np.full(30, 100)])
    odd = np.array([[5, 90, 7, 7, 7, 11, 11], [60, 20, 7, 8, 8, 11, 11]])
    return np.concatenate([both, both[::-1], hub, hub[::-1], odd], axis=1)


def source(nodes: int = NODES) -> GraphSource:
    random = np.random.default_rng(0)
    features = random.normal(size=(nodes, WIDTH)).astype(np.float32)
    labels = random.integers(0, 3, nodes)
    return graph_source("made", features, labels, edges_of(nodes), Split())


def test_what_is_drawn() -> None:
    """Seeds first, every edge is one of the graph and taken once, and each node that was met before the last hop has as
    many as it can up to the fan-out."""
    edges, random = edges_of(), np.random.default_rng(0)
    neighbours = Neighbours(edges, NODES)
    degrees = np.bincount(edges[1], minlength=NODES)
    pairs = np.stack(np.unique(edges, axis=1, return_counts=True)[:1])[0]
    known = {tuple(pair): int((edges == pair[:, None]).all(0).sum()) for pair in pairs.T}
    for fan_out in ((3,), (2, 4), (-1, 2), (30, 30, 1)):
        seeds = random.permutation(NODES)[:9]
        found = neighbours.sample(seeds, fan_out, random)
        assert np.array_equal(found.nodes[:9], seeds)
        assert len(np.unique(found.nodes)) == len(found.nodes)
        taken, times = np.unique(found.nodes[found.edge_index], axis=1, return_counts=True)
        assert all(count <= known[tuple(pair)] for pair, count in zip(taken.T, times, strict=True))
        many = np.bincount(found.edge_index[1], minlength=len(found.nodes))
        reached, first = set(seeds.tolist()), 0
        for most in fan_out:
            hop = found.nodes[first : len(reached)]
            wanted = degrees[hop] if most == -1 else np.minimum(degrees[hop], most)
            assert np.array_equal(many[first : len(reached)], wanted)
            first = len(reached)
            reached |= set(found.nodes[found.edge_index[0][np.isin(found.nodes[found.edge_index[1]], hop)]].tolist())
        assert len(reached) == len(found.nodes)
        assert not many[first:].any()


def test_neighbours_are_drawn_alike_often() -> None:
    """Of the hub's 32, 8 at a time, over 600 draws: each within five deviations of a quarter of them."""
    neighbours, random = Neighbours(edges_of(), NODES), np.random.default_rng(1)
    times = np.zeros(NODES)
    for _ in range(600):
        times[neighbours.sample(np.array([100]), (8,), random).nodes[1:]] += 1
    drawn = times[times > 0]
    assert len(drawn) == 32
    assert drawn.sum() == 600 * 8
    assert abs(drawn - 150).max() < 5 * (600 * 0.25 * 0.75) ** 0.5


class TwoSteps(nn.Module):
    """An operator, and another one of it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        operator = GRAPH.operator(name)
        self.steps = nn.ModuleList(step(operator, WIDTH, WIDTH, degree=3.0) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        for one in self.steps:
            x = torch.tanh(one(x, None, graph))
        return x


REACH = {"sgc": 2, "appnp": 10, "gcn2": 4}  # steps within an operator; of others one
LEARNS_NOTHING = {"zero"}


def assert_whole(network: nn.Module, hops: int) -> None:
    """With all neighbours, or as many as the largest degree, the seeds are answered as in the whole graph."""
    data = source()
    whole = next(data.bind("cpu").batches("train", 0, 0))
    network.eval()
    with torch.no_grad():
        answers = network(*whole.inputs)
        most = int(np.bincount(edges_of()[1]).max())
        for fan_out in ((-1,) * hops, (most,) * hops):
            sampled = data.bind("cpu", Loading(batch_size=16, fan_out=fan_out))
            batch = next(sampled.batches("train", 0, 0))
            assert hops > 9 or len(batch.inputs[0]) < 0.9 * NODES
            x, index = batch.inputs[0], batch.index
            assert index is not None
            rows = [int((data.features == row.numpy()).all(1).argmax()) for row in x[index]]
            assert np.array_equal(batch.target[index].numpy(), data.labels[rows])
            torch.testing.assert_close(network(*batch.inputs)[index], answers[rows], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in GRAPH.table if name not in LEARNS_NOTHING])
def test_all_neighbours_are_the_whole_graph(name: str) -> None:
    """Weights by degrees included: of nodes of the last hop they are not those of the sample."""
    torch.manual_seed(0)
    assert_whole(TwoSteps(name), 2 * REACH.get(name, 1))


SPACES = {
    "nasbench_graph": ({"hidden": 8, "dropout": 0.0}, 4),
    "auto-gnn": ({"dropout": 0.0}, 2),
    "graphnas": ({"dropout": 0.0}, 2),
    "graphnas-micro(training=False)": ({"hidden": 8, "dropout": 0.0}, 4),
    "gnas(layers=1)": ({"hidden": 8, "dropout": 0.0}, 1),
    "graphgym(operators=('general', 'gcn', 'pna'), encodings=('random-walk(features=3)', 'laplacian(features=2)'))": (
        {"hidden": 8},
        8,
    ),
}


@pytest.mark.parametrize("reference", SPACES)
def test_networks_of_spaces_too(reference: str) -> None:
    """Encodings are those of the whole graph."""
    space: SearchSpace = refs.load(reference, BUILTIN, GROUP, "search space").object
    size, hops = SPACES[reference]
    data = source()
    for number in range(3):
        arch = moves.sample(space, generator("sampled", number))
        network = space.build(arch, data.task, space.Size(**size)).eval()
        whole = next(data.bind("cpu").batches("train", 0, 0))
        batch = next(data.bind("cpu", Loading(batch_size=16, fan_out=(-1,) * hops)).batches("train", 0, 0))
        rows = batch.inputs[1].graph.piece.rows[:16]  # type: ignore[attr-defined]
        with torch.no_grad():
            wanted, found = network(*whole.inputs)[rows], network(*batch.inputs)[:16]
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_encodings_of_a_sample_are_those_of_the_whole_graph() -> None:
    """Of its outermost nodes too, whose edges are not in it."""
    data = source()
    whole: Any = next(data.bind("cpu").batches("train", 0, 0)).inputs[1]
    sample: Any = next(data.bind("cpu", Loading(batch_size=8, fan_out=(2,))).batches("train", 0, 0)).inputs[1]
    for name in ("random-walk", "laplacian"):
        encoding = ENCODING.operator(name).make()
        torch.testing.assert_close(
            encoded(encoding, sample.graph), encoded(encoding, whole.graph)[sample.graph.piece.rows]
        )


def test_batches_of_a_pass() -> None:
    """Each node of the part once, in an order of the epoch; what is evaluated is the whole graph."""
    data = source().bind("cpu", Loading(batch_size=32, fan_out=(2, 2)))
    whole = source()
    for part, nodes in (
        ("train", whole.parts.train),
        *zip(HALVES, (whole.parts.train, whole.parts.valid), strict=True),
    ):
        passes: list[list[int]] = []
        for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1)):
            batches: list[Any] = list(data.batches(part, epoch, seed))
            assert {len(batch.index) for batch in batches[:-1]} <= {32}
            passes.append([int(row) for batch in batches for row in batch.inputs[1].graph.piece.rows[batch.index]])
        assert passes[0] == passes[1]
        assert len({tuple(one) for one in passes}) == 3
        left_out = len(nodes) % 32 == 1
        assert len(passes[0]) == len(nodes) - left_out
        assert set(passes[0]) <= set(nodes.tolist())
    (valid,) = data.batches("valid", 0, 0)
    assert len(valid.inputs[0]) == NODES
    assert torch.equal(data.targets("valid"), torch.from_numpy(whole.labels[whole.parts.valid]))


def test_numbers_of_nodes_are_in_the_unit_of_the_training() -> None:
    random = np.random.default_rng(0)
    features, numbers = random.normal(size=(NODES, 3)).astype(np.float32), random.normal(5, 2, NODES)
    made = node_number_source("made", features, numbers, edges_of(), Split())
    batch = next(made.bind("cpu", Loading(batch_size=8, fan_out=(2,))).batches("train", 0, 0))
    rows: Any = batch.inputs[1].graph.piece.rows[:8]  # type: ignore[attr-defined]
    _, targets = batch.answered(torch.zeros(len(batch.inputs[0]), 1))
    np.testing.assert_allclose(targets[:, 0].numpy(), numbers[rows], atol=1e-5)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.steps = nn.ModuleList([step(GRAPH.operator("gcn"), WIDTH, 8), step(GRAPH.operator("gat"), 8, 4)])
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        for one in self.steps:
            x = torch.relu(one(self.drop(x), None, graph))
        return self.last(x)


def trained(folder: Path | None, budgets: tuple[int, ...]) -> tuple[nn.Module, list[Any]]:
    data = source()
    recipe = recipes.recipe("quick", data.task, epochs=4, batch_size=32, fan_out=(3, 2))
    loading = Loading(batch_size=recipe.batch_size, fan_out=recipe.fan_out)
    for budget in budgets:
        network = Network()
        bound = data.bind("cpu", loading)
        given: dict[str, Any] = {"device": torch.device("cpu"), "seed": 5, "full": 4}
        reports = list(fit(network, bound, recipe, budget=budget, folder=folder, **given))
    return network, [report.metrics for report in reports]


def test_a_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, reports = trained(None, (4,))
    parts, again = trained(tmp_path, (1, 3, 4))
    assert reports == again
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))


def test_other_tasks_have_no_fan_out() -> None:
    for kind, level in (("link-prediction", "pair"), ("graph-classification", "graph")):
        task = graph_task(4, 2, 10, 20, kind=kind, level=level)
        with pytest.raises(UsageError, match=f"fan_out is for nodes of one graph; the task is {kind}"):
            recipes.recipe("quick", task, fan_out=(3,))
