"""Local search: the moves of the climb, restarts, trials in flight, and the reference figures."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.evaluation import Objective
from nas_core.moves import neighbours
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.local_search import LocalSearch

SPACE = NasBench201()
QUALITY = (Objective("quality", "max"),)


class Toy(SearchSpace):
    """Nine architectures; the only local optimum is (2, 2)."""

    name = "toy"
    choices = (Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2)))


def make(move: Literal["first", "best"] = "first", seed: int = 0, space: SearchSpace = SPACE) -> LocalSearch:
    return LocalSearch(Setting(space, seed, QUALITY), LocalSearch.Config(move=move))


def rugged(arch: Architecture) -> dict[str, float]:
    """Many local optima, no ties: a digest of the architecture."""
    return {"quality": float(int(arch.key[:8], 16))}


def outcome(number: int, proposal: Proposal, value: float | None) -> Outcome:
    if value is None:
        return Outcome(number, proposal, State.FAILED, None)
    return Outcome(number, proposal, State.COMPLETE, (value,))


def climb(play: Any, move: Literal["first", "best"], seed: int, lag: int = 1) -> list[Outcome]:
    setting = Setting(SPACE, seed, QUALITY)
    found: list[Outcome] = play(make(move, seed), setting, rugged, 400, lag).outcomes
    return found


def value(trial: Outcome) -> float:
    assert trial.values is not None
    return trial.values[0]


@pytest.mark.parametrize("seed", range(3))
def test_first_moves_at_the_first_improvement_and_restarts_at_local_optima(play: Any, seed: int) -> None:
    trials = climb(play, "first", seed)
    centre = trials[0]
    tried: set[str] = set()
    known = {centre.proposal.arch.key}
    restarts = 0
    for trial in trials[1:]:
        arch, note = trial.proposal.arch, trial.proposal.note
        if note["role"] == "start":
            assert tried == {one.key for one in neighbours(SPACE, centre.proposal.arch)}
            assert arch.key not in known
            centre, tried, restarts = trial, set(), restarts + 1
        else:
            assert note == {"role": "neighbour", "of": centre.number}
            assert arch.key not in tried
            tried.add(arch.key)
            if value(trial) > value(centre):
                centre, tried = trial, set()
        known.add(arch.key)
    assert restarts > 2


@pytest.mark.parametrize("seed", range(3))
def test_best_evaluates_all_neighbours_and_moves_to_the_best(play: Any, seed: int) -> None:
    trials = climb(play, "best", seed)
    moves = 0
    while len(trials) > 25:
        centre, around, trials = trials[0], trials[1:25], trials[25:]
        while len(around) == 24:
            assert {trial.proposal.note.get("of") for trial in around} == {centre.number}
            assert len({trial.proposal.arch.key for trial in around}) == 24
            best = max(around, key=value)
            if value(best) <= value(centre):
                break
            centre, moves = best, moves + 1
            around, trials = trials[:24], trials[24:]
        assert not trials or len(around) < 24 or trials[0].proposal.note["role"] == "start"
    assert moves > 5


def test_neighbours_come_in_random_order() -> None:
    """Over many seeds every edge is the first to be changed."""
    firsts = set()
    for seed in range(60):
        strategy = make(seed=seed)
        start = strategy.ask(0, ())
        assert start is not None
        strategy.tell(outcome(0, start, 0.0))
        first = strategy.ask(1, ())
        assert first is not None
        firsts |= {name for name, option in first.arch.values.items() if option != start.arch.values[name]}
    assert len(firsts) == 6


def test_trials_in_flight_go_on_with_neighbours_until_all_are_asked() -> None:
    strategy = make()
    pending: list[Pending] = []
    while (proposal := strategy.ask(len(pending), pending)) is not None:
        pending.append(Pending(len(pending), proposal))
    assert [trial.proposal.note["role"] for trial in pending] == ["start"] + ["neighbour"] * 24
    assert len({trial.proposal.arch for trial in pending}) == 25
    strategy.tell(outcome(0, pending[0].proposal, 1.0))
    assert strategy.ask(25, pending[1:]) is None
    for trial in pending[1:]:
        strategy.tell(outcome(trial.number, trial.proposal, 0.0))
    restart = strategy.ask(25, ())
    assert restart is not None
    assert restart.note == {"role": "start"}


def test_neighbours_told_before_their_start_count_once_it_is_told() -> None:
    strategy = make()
    pending: list[Pending] = []
    for number in range(4):
        proposal = strategy.ask(number, pending)
        assert proposal is not None
        pending.append(Pending(number, proposal))
    for number, quality in ((2, 0.0), (3, 5.0)):
        strategy.tell(outcome(number, pending[number].proposal, quality))
    ahead = strategy.ask(4, pending[:2])
    assert ahead is not None
    assert ahead.note["of"] == 0
    assert ahead.arch not in {trial.proposal.arch for trial in pending}
    strategy.tell(outcome(0, pending[0].proposal, 1.0))
    moved = strategy.ask(4, pending[1:2])
    assert moved is not None
    assert moved.note["of"] == 3


def test_a_better_neighbour_of_an_earlier_centre_still_counts() -> None:
    strategy = make()
    pending: list[Pending] = []
    for number in range(3):
        proposal = strategy.ask(number, pending)
        assert proposal is not None
        pending.append(Pending(number, proposal))
    for number, quality in enumerate((1.0, 2.0, 3.0)):
        strategy.tell(outcome(number, pending[number].proposal, quality))
    after = strategy.ask(3, ())
    assert after is not None
    assert after.note["of"] == 2


def test_a_failed_start_is_replaced_and_a_failed_neighbour_is_no_improvement() -> None:
    strategy = make()
    first = strategy.ask(0, ())
    assert first is not None
    strategy.tell(outcome(0, first, None))
    second = strategy.ask(1, ())
    assert second is not None
    assert second.note["role"] == "start"
    assert second.arch != first.arch
    strategy.tell(Outcome(1, second, State.REJECTED, None, (0.5,)))
    third = strategy.ask(2, ())
    assert third is not None
    strategy.tell(outcome(2, third, None))
    fourth = strategy.ask(3, ())
    assert fourth is not None
    assert fourth.note["of"] == 1
    strategy.tell(Outcome(3, fourth, State.REJECTED, None, (0.2,)))  # less violation is an improvement
    fifth = strategy.ask(4, ())
    assert fifth is not None
    assert fifth.note["of"] == 3


@pytest.mark.parametrize("move", ["first", "best"])
@pytest.mark.parametrize("lag", [1, 5])
def test_a_small_space_is_exhausted(play: Any, move: Literal["first", "best"], lag: int) -> None:
    space = Toy()
    setting = Setting(space, 0, QUALITY)
    run = play(
        make(move, space=space), setting, lambda arch: {"quality": sum(map(float, arch.values.values()))}, 100, lag
    )
    assert run.exhausted
    assert len(run.distinct) == 9
    with pytest.raises(Exhausted):
        LocalSearch(setting, LocalSearch.Config()).ask(0, _all_pending(space))


def _all_pending(space: SearchSpace) -> list[Pending]:
    archs = [Architecture(space.name, {"a": a, "b": b}) for a in range(3) for b in range(3)]
    return [Pending(number, Proposal(arch)) for number, arch in enumerate(archs)]


@pytest.mark.parametrize(
    ("data", "move", "reference"),
    [("cifar10", "first", 94.29), ("cifar10", "best", 94.13), ("cifar100", "first", 73.31), ("cs", "first", 90.29)],
)
def test_reference(benches: Any, errors_off: Any, data: str, move: Literal["first", "best"], reference: float) -> None:
    """Test accuracy after 100 distinct rows; the reference is the mean over 500 seeds."""
    found = benches[data].incumbents(LocalSearch, LocalSearch.Config(move=move), seeds=60, queries=100)
    assert errors_off([metrics["test_accuracy"] for metrics in found], reference, seeds=500) < 4
