"""TPE and the Gaussian process by Optuna: the view is what Optuna would have recorded itself; what is added to it."""

from __future__ import annotations

import logging
import statistics
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import norm, ttest_rel

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, When
from nas_core.evaluation import Constraint, Objective
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from strategies.basic.random_search import RandomSearch
from strategies.model_based.optuna_sampler import GP, TPE
from strategies.parts import optuna_view
from strategies.parts.targets import normal_scores

QUALITY = (Objective("quality", "max"),)
TWO = (*QUALITY, Objective("price", "min"))


class Plain(SearchSpace):
    """Choices in alphabetical order, so that Optuna's own search for the joint space finds the same order."""

    name = "plain"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("a", ("x", "y", "z", "w")),
        Choice("b", (8, 16, 32, 64, 128), ordered=True),
        Choice("c", (True, False)),
        Choice("d", tuple(range(10))),
        Choice("only", ("one",)),
    )


class Nested(SearchSpace):
    """`kernel` exists only in convolutions; two equal neighbours are not allowed."""

    name = "nested"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("first", ("skip", "conv", "pool")),
        Choice("kernel", (3, 5, 7), when=(When("first", ("conv",)),), ordered=True),
        Choice("second", ("skip", "conv", "pool")),
    )

    def allowed(self, choice: Choice, prefix: Any) -> tuple[Any, ...]:
        return tuple(option for option in choice.options if choice.name != "second" or option != prefix["first"])


PLAIN, NESTED = Plain(), Nested()
DISTRIBUTIONS = {
    "a": CategoricalDistribution(range(4)),
    "b": IntDistribution(0, 4),
    "c": CategoricalDistribution(range(2)),
    "d": CategoricalDistribution(range(10)),
}


def setting(space: SearchSpace = PLAIN, objectives: Sequence[Objective] = QUALITY, **changes: Any) -> Setting:
    return Setting(space, 3, tuple(objectives), **changes)


def quality(arch: Architecture) -> float:
    values = arch.values
    return float(PLAIN.choices[1].index(values["b"]) - abs(float(values["d"]) - 6) + 2 * (values["a"] == "z"))


def told(count: int, space: SearchSpace = PLAIN, objectives: int = 1) -> list[Outcome]:
    rng, outcomes = generator("outcomes"), []
    for number in range(count):
        arch = moves.sample(space, rng)
        values = (quality(arch), -float(rng.random()))[:objectives]
        outcomes.append(Outcome(number, Proposal(arch), State.COMPLETE, values))
    return outcomes


def distinct(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """As a strategy shows them: once, in the place of the last tell."""
    last = {outcome.proposal.arch.key: outcome for outcome in outcomes}
    return sorted(last.values(), key=lambda outcome: outcome.number)


def recorded(outcome: Outcome, values: Sequence[float] | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """The trial as Optuna's public functions make it."""
    arch = outcome.proposal.arch
    params = {choice.name: choice.index(arch.values[choice.name]) for choice in PLAIN.choices[:4]}
    violations = {"constraints": list(outcome.violations)}
    return create_trial(state=state, values=values, params=params, distributions=DISTRIBUTIONS, system_attrs=violations)


def optunas(sampler: Any, trials: Sequence[FrozenTrial], objectives: int = 1) -> Architecture:
    """What a study of Optuna's suggests after these trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler, directions=["maximize"] * objectives)
    study.add_trials(trials)
    params = study.ask(DISTRIBUTIONS).params
    values = {choice.name: choice.options[params.get(choice.name, 0)] for choice in PLAIN.choices}
    return Architecture("plain", values)


def sampler_seed(number: int) -> int:
    return derive(3, number, "suggest", 0) % 2**32


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What Optuna logs."""
    log, logger, messages = logging.Handler(), logging.getLogger("optuna"), list[str]()
    log.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(log)
    yield messages
    logger.removeHandler(log)


# --- the view ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("pending", [0, 3])
@pytest.mark.parametrize("multivariate", [True, False])
def test_tpe_suggests_what_optuna_suggests_after_the_same_trials(
    objectives: int, pending: int, multivariate: bool
) -> None:
    strategy = TPE(setting(objectives=TWO[:objectives]), TPE.Config(multivariate=multivariate))
    outcomes = told(40, objectives=objectives)
    for outcome in outcomes:
        strategy.tell(outcome)
    running = [Pending(100 + place, one.proposal) for place, one in enumerate(told(50)[40 : 40 + pending])]
    agreed = 0
    for number in range(200, 230):
        proposal = strategy.ask(number, running)
        if proposal.note["role"] != "suggested":
            continue
        sampler = optuna.samplers.TPESampler(
            seed=sampler_seed(number), n_startup_trials=1, multivariate=multivariate, constant_liar=True
        )
        trials = [recorded(one, one.values) for one in distinct(outcomes)]
        trials += [recorded(one, None, TrialState.RUNNING) for one in told(50)[40 : 40 + pending]]
        expected = optunas(sampler, trials, objectives)
        if expected.key not in {one.proposal.arch.key for one in (*outcomes, *running)}:
            assert proposal.arch == expected
            agreed += 1
    assert agreed >= 5


def test_tpe_counts_constraints_as_optuna_does() -> None:
    strategy = TPE(setting(constraints=(Constraint("price", "<=", 1.0),)), TPE.Config())
    outcomes = [
        Outcome(one.number, one.proposal, one.state, one.values, ((one.values or (0.0,))[0] - 2.0,)) for one in told(40)
    ]
    for outcome in outcomes:
        strategy.tell(outcome)
    free = TPE(setting(), TPE.Config())
    for outcome in told(40):
        free.tell(outcome)
    mine = [strategy.ask(number, ()).arch for number in range(100, 120)]
    assert statistics.fmean(map(quality, mine)) < statistics.fmean(
        quality(free.ask(number, ()).arch) for number in range(100, 120)
    )
    for number, arch in zip(range(100, 120), mine, strict=True):
        major = int(optuna.__version__.split(".")[0])
        asked = {} if major >= 5 else {"constraints_func": lambda trial: trial.system_attrs["constraints"]}
        sampler = optuna.samplers.TPESampler(
            seed=sampler_seed(number), n_startup_trials=1, multivariate=True, constant_liar=True, **asked
        )
        expected = optunas(sampler, [recorded(one, one.values) for one in distinct(outcomes)])
        if strategy.ask(number, ()).note["role"] == "suggested" and expected.key not in {
            outcome.proposal.arch.key for outcome in outcomes
        }:
            assert arch == expected


def test_the_process_suggests_what_optuna_suggests_for_the_normal_scores() -> None:
    strategy = GP(setting(), GP.Config())
    outcomes = told(25)
    for outcome in outcomes:
        strategy.tell(outcome)
    shown = distinct(outcomes)
    targets = normal_scores(shown, numpy.ones(1))
    trials = [recorded(one, (target,)) for one, target in zip(shown, targets, strict=True)]
    for number in (100, 101):
        proposal = strategy.ask(number, ())
        assert proposal.note["role"] == "suggested"
        assert proposal.arch == optunas(
            optuna.samplers.GPSampler(seed=sampler_seed(number), n_startup_trials=1), trials
        )


def test_ordered_choices_are_positions_on_a_grid_and_others_are_categories() -> None:
    found = {choice.name: optuna_view.distribution(choice) for choice in PLAIN.choices[:4]}
    assert found == DISTRIBUTIONS


@pytest.mark.parametrize(("kind", "config"), [(TPE, {}), (TPE, {"multivariate": False}), (GP, {})])
def test_inactive_choices_are_not_asked_for_and_all_is_legal(kind: Any, config: dict[str, Any]) -> None:
    strategy = kind(setting(NESTED), kind.Config(startup=4, **config))
    for number in range(8):
        arch = strategy.ask(number, ()).arch
        assert NESTED.illegal(arch) is None
        assert ("kernel" in arch.values) == (arch.values["first"] == "conv")
        strategy.tell(Outcome(number, Proposal(arch), State.COMPLETE, (float(len(arch.values)),)))


@pytest.mark.parametrize("kind", [TPE, GP])
def test_nothing_of_optunas_or_torchs_is_changed_or_written(kind: Any, said: list[str]) -> None:
    optuna.logging.set_verbosity(logging.INFO)
    torch.set_num_threads(2)
    numpy.random.seed(0)
    state, global_state = torch.get_rng_state(), numpy.random.get_state()[1].tolist()  # type: ignore[index]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        strategy = kind(setting(), kind.Config())
        for outcome in told(15):
            strategy.tell(outcome)
        two = strategy.ask(50, ())
    assert warned == []
    assert optuna.logging.get_verbosity() == logging.INFO
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert numpy.random.get_state()[1].tolist() == global_state  # type: ignore[index]
    assert said == []
    torch.set_num_threads(1)
    assert strategy.ask(50, ()) == two


# --- what is added -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TPE, GP])
def test_nothing_is_proposed_twice_until_nothing_is_left(kind: Any) -> None:
    everything = {arch.key for arch in moves.enumerate_all(NESTED)}
    strategy = kind(setting(NESTED), kind.Config(startup=3))
    seen = set[str]()
    for number in range(len(everything)):
        proposal = strategy.ask(number, ())
        assert proposal.arch.key not in seen
        seen.add(proposal.arch.key)
        state, values = (State.FAILED, None) if number % 4 == 3 else (State.COMPLETE, (1.0,))
        strategy.tell(Outcome(number, proposal, state, values))
    assert seen == everything
    with pytest.raises(Exhausted):
        strategy.ask(99, ())


def test_a_known_suggestion_leads_to_its_neighbour() -> None:
    """All is told but two candidates, one of them next to the best one."""
    every = list(moves.enumerate_all(PLAIN))
    best = max(every, key=quality)
    near = Architecture("plain", {**best.values, "c": False})
    far = Architecture("plain", {"a": "x", "b": 8, "c": True, "d": 0, "only": "one"})
    strategy = TPE(setting(), TPE.Config())
    number = 0
    for arch in every:
        if arch not in (near, far):
            strategy.tell(Outcome(number, Proposal(arch), State.COMPLETE, (quality(arch),)))
            number += 1
    proposals = [strategy.ask(number + step, ()) for step in range(10)]
    assert {proposal.arch for proposal in proposals} <= {near, far}
    assert [proposal.arch for proposal in proposals].count(near) > 5
    assert [proposal.note["role"] for proposal in proposals].count("neighbour") > 5
    strategy.tell(Outcome(number, Proposal(near), State.COMPLETE, (0.0,)))
    assert strategy.ask(number + 1, ()).arch == far


def test_starts_count_what_is_told_and_what_is_pending() -> None:
    strategy = TPE(setting(), TPE.Config(startup=5))
    outcomes = told(5)
    for outcome in outcomes[:3]:
        strategy.tell(outcome)
    assert strategy.ask(7, ()).note == {"role": "start"}
    pending = [Pending(outcome.number, outcome.proposal) for outcome in outcomes[3:]]
    assert strategy.ask(7, pending[:1]).note == {"role": "start"}
    assert strategy.ask(7, pending).note == {"role": "suggested"}


def test_the_best_and_the_latest_outcomes_are_kept() -> None:
    """Of 20: the best five of all, and the last fifteen. What came between could as well have been anything."""
    first, last = told(5), told(60)[45:]

    def after(filler: float, seed: str) -> list[Architecture]:
        strategy, rng = TPE(setting(identity=lambda arch: str(rng.random())), TPE.Config(history=20)), generator(seed)
        numbered = [(one.proposal, (100.0 + one.number,)) for one in first]
        numbered += [(Proposal(moves.sample(PLAIN, rng)), (filler,)) for _ in range(100)]
        numbered += [(one.proposal, one.values or ()) for one in last]
        for number, (proposal, values) in enumerate(numbered):
            strategy.tell(Outcome(number, proposal, State.COMPLETE, values))
        return [strategy.ask(number, ()).arch for number in range(500, 510)]

    assert after(-9.0, "one") == after(-5.0, "other")


def test_outcomes_without_any_measurement_are_not_shown() -> None:
    outcomes = told(30)
    with_failures, without = (TPE(setting(), TPE.Config()) for _ in range(2))
    for outcome in outcomes:
        without.tell(outcome)
        with_failures.tell(outcome)
    failed = moves.sample(PLAIN, generator("failed"))
    with_failures.tell(Outcome(30, Proposal(failed), State.FAILED, None))
    for number in range(40, 60):
        assert with_failures.ask(number, ()).arch in (without.ask(number, ()).arch, *moves.neighbours(PLAIN, failed))
        assert with_failures.ask(number, ()).arch != failed


# --- the targets of the process ----------------------------------------------------------------------------


def outcome(values: tuple[float, ...] | None, violation: float = 0.0) -> Outcome:
    return Outcome(0, Proposal(Architecture("plain", {})), State.COMPLETE, values, (violation,))


def test_targets_are_normal_scores_of_ranks() -> None:
    scores = normal_scores([outcome((3.0,)), outcome((9.0,)), outcome((-700.0,)), outcome((4.0,))], numpy.ones(1))
    assert scores == pytest.approx([norm.ppf(0.375), norm.ppf(0.875), norm.ppf(0.125), norm.ppf(0.625)])


def test_equal_outcomes_share_a_target_and_the_infeasible_ones_come_last() -> None:
    found = normal_scores(
        [outcome((1.0,)), outcome((99.0,), 0.5), outcome(None, 0.2), outcome((1.0,), -1.0), outcome(None, numpy.inf)],
        numpy.ones(1),
    )
    assert found == pytest.approx([norm.ppf(0.8), norm.ppf(0.3), norm.ppf(0.5), norm.ppf(0.8), norm.ppf(0.1)])


def test_several_objectives_are_joined_by_the_augmented_chebyshev_function() -> None:
    """Losses (0, 1), (.5, .5), (1, 0), of which the weights make .21, .42 + .025, .84 of the second, and so on."""
    three = [outcome((10.0, 0.0)), outcome((5.0, 2.0)), outcome((0.0, 4.0))]
    low, middle, high = norm.ppf(1 / 6), 0.0, norm.ppf(5 / 6)
    assert normal_scores(three, numpy.array([0.8, 0.2])) == pytest.approx([high, middle, low])
    assert normal_scores(three, numpy.array([0.2, 0.8])) == pytest.approx([low, middle, high])
    assert normal_scores(three, numpy.array([0.5, 0.5])) == pytest.approx([norm.ppf(1 / 3), high, norm.ppf(1 / 3)])


# --- on the tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [6, pytest.param(15, marks=pytest.mark.slow)])
def test_tpe_beats_random_search(benches: Any, seeds: int) -> None:
    mine, uninformed = (
        [found["val_accuracy"] for found in benches["cifar10"].incumbents(kind, kind.Config(), seeds, 100)]
        for kind in (TPE, RandomSearch)
    )
    assert ttest_rel(mine, uninformed, alternative="greater").pvalue < 0.01


@pytest.mark.parametrize(("seeds", "queries"), [(2, 20), pytest.param(4, 35, marks=pytest.mark.slow)])
def test_the_process_beats_random_search(benches: Any, seeds: int, queries: int) -> None:
    mine, uninformed = (
        [found["val_accuracy"] for found in benches["cifar10"].incumbents(kind, kind.Config(), seeds, queries)]
        for kind in (GP, RandomSearch)
    )
    assert statistics.fmean(mine) > statistics.fmean(uninformed) + 0.2
