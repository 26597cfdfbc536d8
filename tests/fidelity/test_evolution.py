"""Regularised evolution: ageing, selection, founders, OneMax, and the reference figures."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.strategy import Outcome, Pending, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.random_search import RandomSearch
from strategies.evolution.regularized import RegularizedEvolution

SPACE = NasBench201()
QUALITY = (Objective("quality", "max"),)
Judge = Callable[[int, Architecture], tuple[float, ...] | None]


def make(population: int, sample: int, seed: int = 0, **setting: Any) -> RegularizedEvolution:
    config = RegularizedEvolution.Config(population=population, sample=sample)
    return RegularizedEvolution(Setting(SPACE, seed, QUALITY, **setting), config)


def one_max(arch: Architecture) -> float:
    return float(sum(value == "nor_conv_3x3" for value in arch.values.values()))


def evolve(strategy: RegularizedEvolution, steps: int, judge: Judge) -> list[Outcome]:
    outcomes = []
    for number in range(steps):
        proposal = strategy.ask(number, ())
        values = judge(number, proposal.arch)
        state = State.FAILED if values is None else State.COMPLETE
        outcomes.append(Outcome(number, proposal, state, values))
        strategy.tell(outcomes[-1])
    return outcomes


def test_ageing_parents_are_among_the_last_members() -> None:
    """With the whole population as sample every parent is the best of exactly the last P outcomes."""
    noise = random.Random(0)
    outcomes = evolve(make(10, 10), 200, lambda number, arch: (noise.random(),))
    assert all(outcome.proposal.note == {"role": "founder"} for outcome in outcomes[:10])
    for number in range(10, 200):
        parent = max(outcomes[number - 10 : number], key=lambda outcome: outcome.values or ())
        assert outcomes[number].proposal.note == {"role": "child", "of": parent.number}


def test_a_lucky_member_disappears_after_p_steps() -> None:
    outcomes = evolve(make(10, 5), 60, lambda number, arch: (100.0 if number == 12 else 0.0,))
    children = [outcome.number for outcome in outcomes if outcome.proposal.note.get("of") == 12]
    assert children
    assert max(children) <= 22


def test_a_child_differs_from_its_parent_in_one_choice() -> None:
    outcomes = evolve(make(10, 5), 100, lambda number, arch: (one_max(arch),))
    for outcome in outcomes[10:]:
        parent = outcomes[int(outcome.proposal.note["of"])].proposal.arch.values
        assert sum(parent[name] != value for name, value in outcome.proposal.arch.values.items()) == 1


def test_founders_are_distinct_candidates_and_as_many_as_the_population() -> None:
    for seed in range(20):
        strategy = make(30, 5, seed, identity=SPACE.identity)
        pending = []
        for number in range(30):
            pending.append(Pending(number, strategy.ask(number, pending)))
        assert len({SPACE.identity(trial.proposal.arch) for trial in pending}) == 30
        assert {trial.proposal.note["role"] for trial in pending} == {"founder"}
        for trial in pending:
            strategy.tell(Outcome(trial.number, trial.proposal, State.COMPLETE, (0.0,)))
        assert strategy.ask(30, ()).note["role"] == "child"


def test_failed_trials_never_enter_and_reused_ones_do() -> None:
    outcomes = evolve(make(5, 2), 100, lambda number, arch: None if number % 2 else (1.0,))
    parents = {outcome.proposal.note["of"] for outcome in outcomes if "of" in outcome.proposal.note}
    assert parents
    assert all(int(number) % 2 == 0 for number in parents)
    strategy = make(2, 2)
    for number, state in enumerate((State.COMPLETE, State.COMPLETE, State.REUSED)):
        strategy.tell(Outcome(number, strategy.ask(number, ()), state, (float(number),)))
    assert strategy.ask(3, ()).note["of"] == 2


def test_feasible_members_are_preferred_and_rejected_ones_teach() -> None:
    strategy = make(3, 3, constraints=(Constraint("params", "<=", 1.0),))
    for number, violation, values in ((0, 2.0, None), (1, 0.5, None), (2, 1.0, (9.0,))):
        proposal = Proposal(strategy.ask(number, ()).arch)
        strategy.tell(Outcome(number, proposal, State.REJECTED, values, (violation,)))
    assert strategy.ask(3, ()).note["of"] == 1


def test_one_max_beats_random_search_in_the_median(play: Any) -> None:
    """The card's check: 6 edges, 5 operations, P=10, S=5, 30 seeds, 100 evaluations."""

    def best(strategy: Any, config: Any, seed: int) -> float:
        setting = Setting(SPACE, seed, QUALITY)
        run = play(strategy(setting, config), setting, lambda arch: {"quality": one_max(arch)}, 100)
        return one_max(run.incumbent.proposal.arch)

    config = RegularizedEvolution.Config(population=10, sample=5)
    evolution = [best(RegularizedEvolution, config, seed) for seed in range(30)]
    uninformed = [best(RandomSearch, RandomSearch.Config(), seed) for seed in range(30)]
    assert statistics.median(evolution) == 6
    assert statistics.median(uninformed) < 6


def test_a_sample_larger_than_the_population_is_refused() -> None:
    with pytest.raises(UsageError, match="sample 30 is larger than population 10"):
        validate(RegularizedEvolution.Config, {"sample": 30}, "strategy")


@pytest.mark.parametrize(
    ("data", "population", "sample", "reference"),
    [("cifar10", 20, 5, 94.21), ("cifar100", 20, 5, 72.86), ("cifar10", 10, 3, 94.16), ("cs", 20, 5, 90.38)],
)
def test_reference(benches: Any, errors_off: Any, data: str, population: int, sample: int, reference: float) -> None:
    """Test accuracy after 100 distinct rows; the reference is the mean over 500 seeds."""
    config = RegularizedEvolution.Config(population=population, sample=sample)
    found = benches[data].incumbents(RegularizedEvolution, config, seeds=60, queries=100)
    assert errors_off([metrics["test_accuracy"] for metrics in found], reference, seeds=500) < 4
