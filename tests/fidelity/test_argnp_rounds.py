"""Proliferation: how networks are divided, what rounds hold, when they decide, what a step costs, what is derived."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute
from nas_core.partial import HasDivision, Partial
from nas_core.picker import FixedPicker, Style
from nas_core.strategy import Setting
from nas_core.task import graph_task
from search_spaces.argnp.operations import Wrapped
from search_spaces.argnp.space import OPERATIONS, Argnp, Edge, Vertex, group
from search_spaces.layers.states import Same
from search_spaces.nasbench201.space import NasBench201
from search_spaces.supernet.picker import MixedOp
from search_spaces.supernet.supernet import Supernet, copy_weights
from strategies.one_shot.argnp import Argnp as Proliferation
from strategies.one_shot.sgas import Sgas
from training.data import load

SPACE = Argnp()
SIZE = Argnp.Size(node=2, relation=2, node_output=2, relation_output=2)
TASK = graph_task(5, 3, 12, 30)
# The example of the published program, of nodes; relations of the same sources.
EXAMPLE = [
    Vertex((Edge(0, "sum"), Edge(1, "identity")), (Edge(0, "sub"), Edge(1, "had"))),
    Vertex((Edge(1, "gem3"), Edge(2, "max")), (Edge(1, "gauss"), Edge(2, "mean"))),
]


def rounds(space: Argnp = SPACE, seed: int = 0) -> list[tuple[Any, Supernet, Architecture]]:
    """The space, a supernet and a derived network of each round."""
    random, found = torch.Generator().manual_seed(seed), []
    current: Any = space.initial()
    while True:
        supernet = Supernet(current, TASK, SIZE)
        groups = supernet.groups.values()
        arch = supernet.derive({one.name: torch.rand(len(one.options), generator=random) for one in groups})
        found.append((current, supernet, arch))
        if len(found) == space.rounds:
            return found
        current = space.divide(arch)


def test_the_example_is_divided_as_published() -> None:
    divided: Any = SPACE.divide(SPACE.architecture(EXAMPLE))
    given = {name: value for name, value in divided.given.items() if value is not None}
    assert given == {
        "vertices": 4,
        "node/edge.0-2": "sum",
        "node/edge.1-2": "identity",
        "relation/edge.0-2": "sub",
        "relation/edge.1-2": "had",
        "node/edge.1-4": "gem3",
        "node/edge.3-4": "max",
        "relation/edge.1-4": "gauss",
        "relation/edge.3-4": "mean",
    }
    mixed = Supernet(divided, TASK, SIZE).groups
    sources = {3: (0, 1, 2), 5: (1, 3, 4)}
    assert list(mixed) == [group(kind, j, number) for number in sources for kind in OPERATIONS for j in sources[number]]
    assert all(len(one.options) == 8 for one in mixed.values())


@pytest.mark.parametrize("seed", range(2))
def test_rounds_double_the_vertices_at_a_cost_in_proportion(seed: int) -> None:
    """10, 12, 24 and 48 mixtures of 8 operations, and 0, 8, 16 and 32 edges that are given."""
    assert SPACE.rounds == 4
    counts = []
    for space, supernet, arch in rounds(seed=seed):
        mixtures = [module for module in supernet.modules() if isinstance(module, MixedOp)]
        assert len(mixtures) == len(supernet.groups)
        given = [value for name, value in space.given.items() if name != "vertices" and value is not None]
        edges = supernet.network.operations
        assert len(edges) == len(mixtures) + len(given)
        alphas = sum(len(one.options) for one in supernet.groups.values())
        counts.append((len(SPACE.cell(arch)), len(mixtures), alphas, len(given)))
    assert counts == [(2, 10, 80, 0), (4, 12, 96, 8), (8, 24, 192, 16), (16, 48, 384, 32)]


def test_a_step_runs_operations_in_proportion_to_the_vertices() -> None:
    """Those with weights, counted as they are called: 20 per vertex, where a supernet of all runs 42, 66 and 114."""
    inputs = (torch.randn(12, 5), torch.randint(0, 12, (2, 30)))
    none_kept = {"sum": 2.0, "had": 2.0}  # so that every edge has weights

    def called(supernet: Supernet) -> int:
        count = [0]

        def hook(*_: object) -> None:
            count[0] += 1

        for module in supernet.modules():
            if isinstance(module, Wrapped):
                module.register_forward_hook(hook)
        weights = {name: torch.ones(len(one.options)) for name, one in supernet.groups.items()}
        with torch.no_grad():
            supernet(inputs, supernet.mix(weights))
        return count[0]

    space: Any = SPACE.initial()
    found = []
    for number in range(4):
        supernet = Supernet(space, TASK, SIZE)
        found.append(called(supernet))
        strengths = {
            name: torch.tensor([none_kept.get(str(option), 0.5) for option in one.options])
            for name, one in supernet.groups.items()
        }
        if number < 3:
            space = SPACE.divide(supernet.derive(strengths))
    assert found == [60, 80, 160, 320]
    assert [called(Supernet(Argnp(vertices=count), TASK, SIZE)) for count in (4, 8)] == [42 * 4, 66 * 8]


def test_what_is_given_is_run_alone_and_the_rest_as_in_the_whole_space() -> None:
    """The network that a round derives has in the round's supernet the outputs that it has by itself."""
    inputs = (torch.randn(12, 5), torch.randint(0, 12, (2, 30)))
    for space, supernet, arch in rounds(Argnp(vertices=8), seed=1):
        whole: Any = space.whole
        alone = whole.network(FixedPicker(whole.assignment(arch), Style.SUPERNET), TASK, SIZE)
        with torch.no_grad(), supernet._mixing(supernet.mix_of(arch)):
            copy_weights(supernet.network, alone)
        supernet.eval()
        assert torch.equal(supernet(inputs, supernet.mix_of(arch)), alone.eval()(*inputs))
        torch.testing.assert_close(supernet.extract(arch)(*inputs), alone(*inputs))
        one_hot = {
            name: torch.tensor([float(option == space.assignment(arch)[name]) for option in one.options])
            for name, one in supernet.groups.items()
        }
        assert supernet.derive(one_hot) == arch
        assert space.illegal(arch) is None


def test_a_round_holds_what_it_is_given_and_no_other_network() -> None:
    divided = SPACE.divide(SPACE.architecture(EXAMPLE))
    supernet = Supernet(divided, TASK, SIZE)
    arch = supernet.derive({name: torch.ones(8) for name in supernet.groups})
    cell = SPACE.cell(arch)
    other = SPACE.architecture([cell[0]._replace(node=(Edge(0, "sum"), Edge(1, "max"))), *cell[1:]])
    assert SPACE.illegal(other) is None
    assert divided.illegal(other) == "its group 'node/edge.1-2' has max, where identity is given"
    assert divided.illegal(Architecture("other", {})) == "it belongs to space 'other', not 'argnp'"
    # A state whose other groups are all as weak as can be still reads vertices that it may read.
    weak = supernet.derive({name: torch.eye(8)[0] for name in supernet.groups})
    assert divided.illegal(weak) is None


def test_spaces_without_room_for_it_are_not_divided() -> None:
    space = Argnp(vertices=3)
    assert (space.rounds, isinstance(space, HasDivision)) == (1, True)
    with pytest.raises(UsageError, match="a network of 2 vertices is divided into one of 4, but there are at most 3"):
        space.divide(space.architecture(EXAMPLE))


def test_rounds_take_26_26_46_and_86_epochs() -> None:
    config = Proliferation.Config()
    assert (config.lengths, config.epochs, config.rounds) == ((26, 26, 46, 86), 184, 4)
    assert not config.bilevel
    for number, length in enumerate(config.lengths):
        inner = config.of_round(number)
        assert (inner.epochs, inner.warm_up, inner.decide_every) == (length, 10, 5)
    short = Proliferation.Config(rounds=3, warm_up_epochs=1, decide_every=2)
    assert (short.lengths, short.epochs) == ((8, 8, 16), 32)
    stored = Proliferation.Config(**short.model_dump(mode="json"))
    assert stored == short


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ({"epochs": 2}, (1, 1)),
        ({"epochs": 20}, (3, 3, 5, 9)),
        ({"epochs": 1}, (1,)),
        ({"epochs": 6, "rounds": 2, "warm_up_epochs": 1}, (3, 3)),
    ],
)
def test_other_epochs_are_shared_among_the_rounds(given: Mapping[str, int], lengths: tuple[int, ...]) -> None:
    config = Proliferation.Config(**given)
    assert (config.lengths, config.rounds, config.decide_every) == (lengths, len(lengths), None)
    assert Proliferation.Config(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 100, "decide_every": 5}, "4 rounds with a decision every 5 epochs take 184 epochs, and not 100"),
        ({"epochs": 3, "rounds": 4}, "epochs 3 are fewer than the 4 rounds"),
        ({"epochs": 8, "rounds": 2, "warm_up_epochs": 4}, "warm_up_epochs 4 leaves none of a round's 4 epochs"),
        ({"rounds": 17}, "less than or equal to 16"),
    ],
)
def test_settings_that_contradict(given: Mapping[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Proliferation.Config(**given)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            Argnp(vertices=8),
            "4 rounds are too many for space 'argnp-8', which has room for 3; take -s strategy.rounds=3",
        ),
        (NasBench201(), "divides the vertices of networks, and space 'nasbench201' does not say how"),
    ],
)
def test_spaces_that_cannot_be_searched(space: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Proliferation(Setting(space, 0, (Objective("val_loss", "min"),)), Proliferation.Config())


def untrained(monkeypatch: pytest.MonkeyPatch, space: Argnp, **config: Any) -> Proliferation:
    """A search whose alphas stay as they were drawn."""
    monkeypatch.setattr(Sgas, "_single_level", lambda self, epoch: {"train_loss": 0.0})
    data = load("karate").bind("cpu")
    strategy = Proliferation(Setting(space, 3, ()), Proliferation.Config(**config))
    torch.manual_seed(0)
    strategy.start(lambda other=None: Supernet(other or space, data.task, SIZE), data, Compute())
    return strategy


def test_a_whole_search_decides_one_of_each_kind_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = untrained(monkeypatch, Argnp(vertices=8), rounds=3)  # the fourth differs in its numbers alone
    decisions, numbers, derived = [], [], []
    for epoch in range(98):
        progress = strategy.step(epoch)
        decisions.append(int(progress.metrics["decisions"]))
        numbers.append(int(progress.metrics["round"]))
        assert progress.done == (epoch == 97)
        if epoch in (25, 51, 97):
            derived.append(progress.arch)
            assert len(strategy.inner.decided) == len(strategy.supernet.groups)
            assert {strategy.inner.made(kind) for kind in ("node", "relation")} == {progress.metrics["decisions"] / 2}
    assert [numbers.count(number) for number in (1, 2, 3)] == [26, 26, 46]
    # In the first round of four of each kind one in epochs 10, 15, 20 and 25.
    assert decisions[:26] == [0] * 10 + [2] * 5 + [4] * 5 + [6] * 5 + [8]
    assert (decisions[51], decisions[97]) == (8, 16)
    result = strategy.result()
    assert result == derived[::-1]
    cells = [SPACE.cell(arch) for arch in reversed(result)]
    assert [len(cell) for cell in cells] == [2, 4, 8]
    assert all(Argnp(vertices=8).illegal(arch) is None for arch in result)
    for small, large in pairwise(cells):
        for number, vertex in enumerate(small):  # the first half of every vertex does what it did
            kept = large[2 * number]
            for kind in OPERATIONS:
                before, after = getattr(vertex, kind), getattr(kept, kind)
                assert [edge.operation for edge in before] == [edge.operation for edge in after]


def test_kinds_are_scored_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were they scored together the most certain relations would go first, and the least important would be one."""
    strategy = untrained(monkeypatch, Argnp(vertices=2), rounds=1)
    inner = strategy.inner
    p = {"node": (0.3, 0.4, 0.5, 0.6, 0.7), "relation": (0.8, 0.85, 0.9, 0.95, 0.99)}
    with torch.no_grad():
        for kind, names in inner.kinds.items():
            for name, top in zip(names, p[kind], strict=True):
                rest = (1 - top) / 7
                inner.alphas.vectors[name].copy_(torch.tensor([rest, top, *[rest] * 6]).log())
    for kind in ("node", "relation"):
        scores = list(inner.scores(kind).values())
        assert (scores[0], scores[-1]) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    strategy.step(10)
    assert list(inner.decided) == [inner.kinds["node"][-1], inner.kinds["relation"][-1]]


def test_the_largest_supernet_is_that_of_the_last_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a search will need is known before its first round."""
    space = Argnp(vertices=8)
    strategy = untrained(monkeypatch, space, rounds=3)
    largest = strategy.largest(lambda other=None: Supernet(other or space, TASK, SIZE))
    assert isinstance(largest, Partial)
    assert len(Supernet(largest, TASK, SIZE).groups) == 24


def test_what_is_given_of_a_round_gets_gradients_and_is_handed_on() -> None:
    divided = SPACE.divide(SPACE.architecture(EXAMPLE))
    supernet = Supernet(divided, TASK, SIZE)
    assert isinstance(supernet.network.operations["node1to2"], Same)
    everything = supernet.mix({name: torch.ones(8) for name in supernet.groups})
    output = supernet((torch.randn(12, 5), torch.randint(0, 12, (2, 30))), everything)
    output.square().sum().backward()
    for name in ("node0to2", "node3to4", "relation1to2"):
        assert all(parameter.grad is not None for parameter in supernet.network.operations[name].parameters())
