"""Every space of graphs takes operators by name, its own and those of a user's file."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import search_spaces
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.task import GRAPH_KINDS, Task, graph_task
from search_spaces.operators.graph.sample import ring
from training.spaces import check_kind

OWN = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_operator.py'}:Contrast(hops=2)"
LABEL = "Contrast(hops=2)"
NODES = graph_task(5, 3, 12, 30)
GRAPHS = graph_task(5, 3, 12, 30, kind="graph-classification", level="graph", counts=True)
SPACES = {
    "gnas": "gnas(layers=2, {})",
    "argnp": "argnp(vertices=2, {})",
    "auto-gnn": "auto-gnn({})",
    "graphnas": "graphnas({})",
    "graphnas-micro": "graphnas-micro({})",
    "graphgym": "graphgym(condensed=True, {})",
    "nasbench_graph": "nasbench_graph({})",
}
AGGREGATED = ("gnas", "argnp", "auto-gnn", "graphnas", "graphgym")
READ_OUT = [
    name
    for name in search_spaces.BUILTIN
    if "readouts"
    in signature(refs.resolve(name, search_spaces.BUILTIN, search_spaces.GROUP, "space")[0].object).parameters
]
"""Those that make an answer of a graph of its nodes' as they are told to."""
MEDIAN = '''
from torch import nn
from torch_geometric.utils import scatter


class Least(nn.Module):
    """The least of the values, per feature; 0 where there are none."""

    def __init__(self, width, double=False):
        super().__init__()
        self.out_features = 2 * width if double else width
        self.double = double

    def forward(self, values, index, count):
        least = scatter(values, index, 0, count, "min")
        return least.repeat(1, 2) if self.double else least
'''


def space_of(name: str, arguments: str) -> Any:
    text = SPACES[name].format(arguments)
    return refs.load(text, search_spaces.BUILTIN, search_spaces.GROUP, "space").object


def with_option(space: Any, label: str) -> Architecture:
    """An architecture that has this option somewhere."""
    rng = np.random.default_rng(0)
    return next(arch for arch in (moves.sample(space, rng) for _ in range(300)) if label in arch.values.values())


def built(space: Any, arch: Architecture, task: Task) -> Any:
    torch.manual_seed(0)
    return space.build(arch, task, space.Size.preset("search")).eval()


@pytest.mark.parametrize("name", SPACES)
def test_an_operator_of_ones_own_joins_every_space(name: str) -> None:
    space = space_of(name, f"operators=('gcn', '{OWN}')")
    assert space.name.startswith(name)
    assert space.name != space_of(name, "operators=('gcn', 'sage')").name
    assert not list(space.findings())
    arch = with_option(space, LABEL)
    assert space.from_text(space.to_text(arch)) == arch
    assert space.costs(arch, NODES, space.Size.preset("search"))["params"] > 0
    network = built(space, arch, NODES)
    assert any(type(module).__name__ == "Contrast" for module in network.modules())
    assert network(torch.rand(12, 5), ring(12, 30)).shape == (12, 3)


@pytest.mark.parametrize("name", AGGREGATED)
def test_an_aggregator_of_ones_own_joins_those_that_aggregate(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MEDIAN)
    least = f"{tmp_path / 'mine.py'}:Least"
    space = space_of(name, f"aggregators=('sum', '{least}', 'lcm')")
    arch = with_option(space, "Least")
    assert space.from_text(space.to_text(arch)) == arch
    network = built(space, arch, NODES)
    assert any(type(module).__name__ == "Least" for module in network.modules())
    assert torch.isfinite(network(torch.rand(12, 5), ring(12, 30))).all()
    wide = space_of(name, f"aggregators=('{least}(double=True)', 'sum')")
    with pytest.raises(UsageError, match="Least"):
        built(wide, with_option(wide, "Least(double=True)"), NODES)


@pytest.mark.parametrize("name", READ_OUT)
def test_encodings_and_readouts_are_named(name: str) -> None:
    space = space_of(name, "encodings=('random-walk(features=3)',), readouts=('softmax',)")
    assert space.name != name
    arch = next(
        arch
        for arch in (moves.sample(space, np.random.default_rng(seed)) for seed in range(30))
        if arch.values.get("encoding") != "none"
    )
    network = built(space, arch, GRAPHS)
    kinds = {type(module).__name__ for module in network.modules()}
    assert {"RandomWalk", "Softmax"} <= kinds
    counts = torch.tensor([7, 5])
    edges = torch.cat([ring(7, 14), ring(5, 8) + 7], 1)
    x = torch.rand(12, 5)
    both = network(x, edges, counts)
    apart = torch.cat([network(x[:7], ring(7, 14), counts[:1]), network(x[7:], ring(5, 8), counts[1:])])
    torch.testing.assert_close(both, apart, rtol=1e-4, atol=1e-5)
    assert both.shape == (2, 3)


@pytest.mark.parametrize("name", READ_OUT)
def test_readouts_are_refused_where_none_are_made(name: str) -> None:
    for kind in GRAPH_KINDS:
        check_kind(space_of(name, ""), kind, "my data")
    space = space_of(name, "readouts=('mean',)")
    learned = {"graph-classification", "graph-regression"}
    for kind in learned:
        check_kind(space, kind, "my data")
    for kind in GRAPH_KINDS - learned:
        with pytest.raises(UsageError) as caught:
            check_kind(space, kind, "my data")
        assert f"'{space.name}' is for graph-classification, graph-regression, but the data 'my data' is {kind}; " in (
            said := str(caught.value)
        )
        assert said.endswith(": leave readouts= out")
        assert "\n" not in said
    with pytest.raises(UsageError) as caught:
        check_kind(space, "image-classification", "digits")
    assert "readouts" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gnas(rewirings=('virtual-node',))", "has no argument 'rewirings'; it takes layers, vertices, encodings"),
        ("graphnas-micro(aggregators=('sum',))", "has no argument 'aggregators'; it takes nodes, training, operators"),
        ("gnas(operators=('skip',))", "gnas has no place for 'skip', which hands its input on"),
        ("argnp(operators=('zero',))", "argnp has no place for 'zero', which adds nothing"),
        ("gnas(aggregators=())", "gnas needs aggregators or operators"),
        ("gnas(readouts=())", "gnas needs readouts"),
        ("argnp(readouts=())", "argnp needs readouts"),
        ("auto-gnn(aggregators=())", "auto-gnn needs aggregators"),
        ("auto-gnn(readouts=('sum', 'max'))", "auto-gnn has one readout, of what the nodes answer; readouts has 2"),
        ("auto-gnn(operators=('gcnn',))", "unknown graph operator 'gcnn'; did you mean 'gcn'"),
        ("graphnas(aggregators=('mlpp',))", "unknown aggregator 'mlpp'"),
        ("argnp(aggregators='sum')", "aggregators are 'sum'; list them"),
        ("argnp(published_std=True, aggregators=('sum',))", "published_std is of the aggregator 'std', which is not"),
        ("graphgym(operators=('gcn', 'gat'), aggregators=('std',))", "none of the operators gcn, gat has an aggrega"),
        ("graphgym(condensed=1)", "graphgym: condensed is 1; use True or False"),
    ],
)
def test_what_cannot_take_part_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        refs.load(text, search_spaces.BUILTIN, search_spaces.GROUP, "space")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_operator_of_argnp_reads_relations_where_it_takes_features_of_edges() -> None:
    space = space_of("argnp", "operators=('gine', 'gcn')")
    network = built(space, space.from_text("gine(0) gine(1) | sub(0) sub(1) / gcn(0) gine(2) | had(0) max(2)"), NODES)
    x, edges = torch.rand(12, 5), ring(12, 30)
    answer = network(x, edges)
    with torch.no_grad():
        for parameter in network.embed_relation.parameters():
            parameter += 1
    assert not torch.allclose(network(x, edges), answer)
    blind = built(space, space.from_text("gcn(0) gcn(1) | sub(0) sub(1) / gcn(0) gcn(2) | had(0) max(2)"), NODES)
    assert blind.embed_relation is None
    assert not any(name.startswith("relation") for name in blind.operations)


def test_a_layer_by_an_operator_has_no_attention_to_choose() -> None:
    space = space_of("auto-gnn", "operators=('gcn', 'appnp(steps=2, alpha=0.5)')")
    text = "8 appnp(steps=2 alpha=0.5) identity elu / attention gat 1 sum mlp linear"
    arch = space.from_text(text)
    assert space.to_text(arch) == text
    assert "layer0/heads" not in arch.values
    operator = "appnp(steps=2 alpha=0.5)"
    texts = [text, *(text.replace(operator, by) for by in ("gcn", "attention gcn 1 sum"))]
    assert len({space.layer_signatures(space.from_text(each))["layer0"] for each in texts}) == 3
    for bad in ("8 gat 8 sum identity elu / gcn identity linear", "8 gcn 8 sum identity elu / gcn identity linear"):
        with pytest.raises(ValueError, match="layer 0 is"):
            space.from_text(bad)
