"""SGAS: scores by hand, one decision per interval, what is decided runs alone, what cannot be part any more is out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute
from nas_core.strategy import Setting
from search_spaces.argnp.space import Argnp
from search_spaces.darts.space import Darts as DartsSpace
from search_spaces.nasbench201.space import NasBench201
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.sgas import OUT, Sgas, certainty, scale, stability
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

TABULAR, CELLS = NasBench201(), DartsSpace()
SIZES = {TABULAR.name: TABULAR.Size(channels=2, cells=1), CELLS.name: CELLS.Size(channels=2, layers=3)}
DATA = load("digits", Split(limit=96))


def started(space: Any = TABULAR, **config: Any) -> Sgas:
    def make() -> Supernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Supernet(space, DATA.task, SIZES[space.name])

    strategy = Sgas(Setting(space, 3, (Objective("accuracy", "max"),)), Sgas.Config(**{"epochs": 20, **config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        strategy.start(make, DATA.bind("cpu", Loading(batch_size=32)), Compute())
    return strategy


def untrained(strategy: Sgas) -> Sgas:
    strategy._bilevel = lambda epoch: {}  # type: ignore[method-assign]
    return strategy


def give(strategy: Sgas, name: str, probabilities: list[float]) -> None:
    with torch.no_grad():
        strategy.alphas.vectors[name].copy_(torch.tensor(probabilities).log())


def test_certainty_stability_and_scale_by_hand() -> None:
    assert certainty(torch.full((4,), 0.25, dtype=torch.float64)) == pytest.approx(0)
    assert certainty(torch.tensor([0.0, 1.0, 0.0])) == 1
    assert certainty(torch.tensor([1.0])) == 1
    # H(0.5, 0.25, 0.25) = 1.5 bits, and log2 3 = 1.58496
    assert certainty(torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(1 - 1.5 / math.log2(3))
    p, other = torch.tensor([0.6, 0.4]), torch.tensor([0.1, 0.9])
    assert stability(p, [p]) == pytest.approx(1)
    assert stability(p, [p, other]) == pytest.approx((1 + 0.5) / 2)
    assert stability(p, []) == 1
    assert scale([1.0, 3.0, 2.0]) == [0.0, 1.0, 0.5]
    assert scale([2.0, 2.0]) == [1.0, 1.0]


def test_the_score_is_the_product_of_scaled_importance_and_certainty() -> None:
    """nasbench201: none, skip, conv 1x1, conv 3x3, pooling; what is certain of an important edge is decided first."""
    strategy = started(epochs=40, decide_every=5)
    first, second, third, *rest = strategy.supernet.groups
    assert strategy.supernet.groups[first].zero == (True, False, False, False, False)
    for name in rest:  # in between, so that they are neither end of a scale
        give(strategy, name, [0.5, 0.125, 0.125, 0.125, 0.125])
    give(strategy, first, [0.1, 0.87, 0.01, 0.01, 0.01])
    give(strategy, second, [0.2, 0.2, 0.2, 0.2, 0.2])
    give(strategy, third, [0.9, 0.04, 0.02, 0.02, 0.02])
    scores = strategy.scores("")
    entropy = -sum(p * math.log(p) for p in (0.4, 0.2, 0.2, 0.2))
    top = -(87 / 90 * math.log(87 / 90) + 3 * (1 / 90) * math.log(1 / 90))
    certain = {second: 0.0, third: 1 - entropy / math.log(4), first: 1 - top / math.log(4)}
    assert strategy.importance(first) == pytest.approx(0.9)
    assert scores[first] == pytest.approx(1)
    assert scores[second] == pytest.approx((0.8 - 0.1) / (0.9 - 0.1) * certain[second] / certain[first], abs=1e-6)
    assert scores[third] == pytest.approx(0, abs=1e-6)  # the least important of all, however certain
    assert certain[third] > 0
    untrained(strategy)
    strategy.step(strategy.config.warm_up)
    assert list(strategy.decided) == [first]
    assert strategy.supernet.groups[first].options[strategy.decided[first]] == "skip_connect"


def test_stability_counts_with_criterion_2() -> None:
    strategy = started(criterion=2)
    first, second, *rest = strategy.supernet.groups
    for name in rest:
        give(strategy, name, [0.6, 0.1, 0.1, 0.1, 0.1])
    give(strategy, first, [0.1, 0.81, 0.03, 0.03, 0.03])
    give(strategy, second, [0.1, 0.81, 0.03, 0.03, 0.03])
    strategy._before = [{name: strategy._p(name).clone() for name in strategy.supernet.groups}]
    strategy._before[0][first] = torch.tensor([0.0, 0.0, 0.5, 0.5]).double()
    scores = strategy.scores("")
    assert scores[second] == pytest.approx(1)
    assert scores[first] == pytest.approx(0)


def test_one_group_is_decided_per_interval() -> None:
    strategy = untrained(started(epochs=27, warm_up_epochs=10, decide_every=3))
    counts = [strategy.step(epoch).metrics["decisions"] for epoch in range(26)]
    assert counts == [0.0] * 10 + [float(number) for number in range(1, 6) for _ in range(3)] + [6.0]
    assert strategy.step(25).done
    arch = strategy.result()[0]
    for name, position in strategy.decided.items():
        assert arch.values[name] == strategy.supernet.groups[name].options[position]
        assert arch.values[name] != "none"
    with pytest.raises(UsageError, match=r"25 epochs are too few to decide 6 groups .* strategy.epochs=26"):
        started(epochs=25, warm_up_epochs=10, decide_every=3)


def test_by_default_the_last_decision_is_made_in_the_last_epoch() -> None:
    strategy = untrained(started(epochs=9, warm_up_epochs=3))
    assert [strategy.step(epoch).metrics["decisions"] for epoch in range(9)] == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_what_is_decided_runs_alone_and_learns_no_more() -> None:
    strategy = started(epochs=12, warm_up_epochs=1, decide_every=2)
    strategy.step(1)
    (name, position), *_ = strategy.decided.items()
    before = strategy.alphas.vectors[name].detach().clone()
    others = {other: vector.detach().clone() for other, vector in strategy.alphas.vectors.items() if other != name}
    weights = _operations(strategy, name)
    strategy.step(2)
    assert torch.equal(strategy.alphas.vectors[name], before)
    assert all(not torch.equal(strategy.alphas.vectors[other], old) for other, old in others.items())
    mix = strategy.relaxed()
    assert mix.active[name] == (position,)
    assert name not in mix.weights
    for operation, (old, new) in enumerate(zip(weights, _operations(strategy, name), strict=True)):
        moved = any(not torch.equal(one, other) for one, other in zip(old, new, strict=True))
        assert moved == (operation == position and bool(old))


def _operations(strategy: Sgas, name: str) -> list[list[Tensor]]:
    """The weights of a group's operations, copied, over all its places."""
    from search_spaces.supernet.picker import MixedOp

    places = [one for one in strategy.supernet.modules() if isinstance(one, MixedOp) and one.route.name == name]
    count = len(strategy.supernet.groups[name].options)
    return [
        [parameter.detach().clone() for place in places for parameter in place.operations[position].parameters()]
        for position in range(count)
    ]


def test_a_node_with_two_decided_edges_takes_no_third_one() -> None:
    """DARTS cells have two edges per node: 16 decisions of 28 groups, the others are out."""
    strategy = untrained(started(CELLS, epochs=16, warm_up_epochs=0, decide_every=1))
    assert (strategy.totals[""], len(strategy.supernet.groups)) == (16, 28)
    for epoch in range(16):
        progress = strategy.step(epoch)
        assert strategy.made("") == epoch + 1
    assert progress.done
    assert sum(position == OUT for position in strategy.decided.values()) == 12
    taken = CELLS.assignment(strategy.result()[0])
    for name, position in strategy.decided.items():
        assert taken[name] == (None if position == OUT else strategy.supernet.groups[name].options[position])
    # What is left of the supernet is the network that is derived.
    supernet, arch = strategy.supernet.eval(), strategy.result()[0]
    x = torch.randn(2, *DATA.task.input_shape)
    assert torch.equal(supernet((x,), strategy.relaxed()), supernet((x,), supernet.mix_of(arch)))


def test_where_nothing_can_be_none_certainty_alone_decides() -> None:
    """Importance is 1 everywhere then; as published, all scores would be 0."""
    strategy = started()
    for name, group in strategy.supernet.groups.items():
        strategy.supernet.groups[name] = type(group)(name, group.options, group.weighted, (False,) * 5, group.skip)
    names = list(strategy.supernet.groups)
    for name in names:
        give(strategy, name, [0.3, 0.3, 0.2, 0.1, 0.1])
    give(strategy, names[4], [0.96, 0.01, 0.01, 0.01, 0.01])
    assert max(strategy.scores(""), key=strategy.scores("").__getitem__) == names[4]
    assert strategy.scores("")[names[4]] == pytest.approx(1)


def test_how_many_decisions_there_are_does_not_depend_on_what_is_strong_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of vertices decides how many edges there are. It is known from a few networks: one per operation."""
    space, count = Argnp(vertices=4), [0]
    derive = space.derive

    def counted(strengths: Any) -> Any:
        count[0] += 1
        return derive(strengths)

    monkeypatch.setattr(space, "derive", counted)
    data = load("karate").bind("cpu")
    strategy = untrained(Sgas(Setting(space, 3, ()), Sgas.Config(epochs=20, warm_up_epochs=2)))
    torch.manual_seed(0)
    strategy.start(lambda: Supernet(space, data.task, space.Size(node=2, relation=2)), data, Compute())
    assert strategy.totals == {"node": 1 + 8, "relation": 8}
    assert count == [8]
    for vertices, position in ((2, 0), (4, 2)):
        strategy.decided = {}
        with torch.no_grad():
            strategy.alphas.vectors["vertices"].copy_(9 * torch.eye(3)[position])
        progress = [strategy.step(epoch) for epoch in range(20)][-1]
        assert progress.done
        assert len(space.cell(strategy.result()[0])) == vertices
        assert progress.metrics["decisions"] == 1 + 4 * vertices
