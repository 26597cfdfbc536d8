"""The search by masked diffusion: what is proposed when, where pools come from, and how soon the best are found."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import pytest

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import validate
from nas_core.evaluation import Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion.masked import KNOWN, REDRAWN, Diffusion
from strategies.evolution.regularized import RegularizedEvolution

QUALITY = (Objective("quality", "max"),)


class Additive(SearchSpace):
    """4,096 architectures; the quality is a sum over the choices."""

    name = "additive"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"c{place}", tuple("abcd")) for place in range(6))


class Rising(Additive):
    """462 architectures: no choice is followed by an earlier letter."""

    name = "rising"
    choices = tuple(Choice(f"c{place}", tuple("abcdefg")) for place in range(5))

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(option for option in choice.options if all(value <= option for value in prefix.values()))  # type: ignore[operator]


class Few(SearchSpace):
    """Sixteen architectures."""

    name = "few"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", (0, 1, 2, 3)), Choice("b", (0, 1, 2, 3)))


ADDITIVE, RISING, FEW = Additive(), Rising(), Few()
SUM = [("guided", RISING), ("cfg", RISING), ("refit", ADDITIVE)]  # every mode, and every space
PRODUCT = [(mode, space) for space in (ADDITIVE, RISING) for mode in ("guided", "cfg", "refit")]
SMALL: dict[str, Any] = {
    "pool": 60,
    "mutants": 10,
    "guide": {"steps": 80, "members": 2},
    "generator": {"layers": 1, "width": 16, "heads": 2, "hidden": 32, "steps": 300, "samples": 462},
}


def quality(arch: Architecture) -> float:
    return sum(
        math.sin(7 * place + 3 * "abcdefg0123".index(str(value)) + 1)
        for place, value in enumerate(arch.values.values())
    )


def judge(arch: Architecture) -> dict[str, float]:
    return {"quality": quality(arch)}


def setting(space: SearchSpace = ADDITIVE, seed: int = 0, **given: Any) -> Setting:
    return Setting(space, seed, QUALITY, **given)


def made(given: Setting, **config: Any) -> Diffusion:
    return Diffusion(given, validate(Diffusion.Config, {**SMALL, **config}, "strategy"))


def told(strategy: Diffusion, archs: Sequence[Architecture]) -> None:
    for number, arch in enumerate(archs):
        strategy.tell(Outcome(number, Proposal(arch), State.COMPLETE, (quality(arch),)))


def different(space: SearchSpace, count: int, *words: int | str) -> list[Architecture]:
    rng = generator(*words)
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[moves.sample(space, rng)] = None
    return list(found)


def high(space: SearchSpace, share: float) -> float:
    """The quality that this share of the space does not reach."""
    return float(numpy.quantile([quality(arch) for arch in moves.enumerate_all(space)], share))


def roles(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(outcome.proposal.note["role"]) for outcome in outcomes]


# -- what is proposed ---------------------------------------------------------------------------------------


def test_ten_random_ones_then_what_was_generated_and_every_fourth_time_a_neighbour(play: Any) -> None:
    given = setting()
    run = play(made(given), given, judge, 30)
    found = roles(run.outcomes)
    assert found[:10] == ["start"] * 10
    assert {number for number, role in enumerate(found) if role == "neighbour"} == {12, 16, 20, 24, 28}
    assert set(found[10:]) <= {"generated", "mutant", "neighbour"}
    assert "generated" in found
    assert run.incumbent.values[0] > high(ADDITIVE, 0.998)


def test_a_neighbour_is_one_of_the_best(play: Any) -> None:
    given = setting(seed=1)
    run = play(made(given, local=1), given, judge, 16)
    for position in range(10, 16):
        best = max(run.outcomes[:position], key=lambda outcome: outcome.values)
        arch, centre = run.outcomes[position].proposal.arch, best.proposal.arch
        assert sum(arch.values[name] != value for name, value in centre.values.items()) == 1


def test_a_pool_serves_a_batch_and_the_next_one_knows_more() -> None:
    """Between two pools proposals come from one, which is a function of the outcomes up to it."""
    strategy = made(setting(), local=0, batch=4, initial=4)
    told(strategy, different(ADDITIVE, 4, "four"))
    pools = []
    for number in range(4, 12):
        strategy.ask(number, ())
        pools.append(strategy._candidates())
        told(strategy, different(ADDITIVE, 1, "more", number))
    assert all(pool is pools[0] for pool in pools[:4])
    assert all(pool is pools[4] for pool in pools[4:])
    assert pools[0] is not pools[4]


def test_a_pool_has_every_strength_as_often_and_the_bold_ones_are_better() -> None:
    strategy = made(setting(), pool=200, mutants=0)
    told(strategy, different(ADDITIVE, 40, "known"))
    pool = strategy._candidates()
    by_scale: dict[float, list[float]] = {}
    for proposal in pool:
        by_scale.setdefault(float(proposal.note["scale"]), []).append(quality(proposal.arch))
    assert {scale: len(values) for scale, values in by_scale.items()} == dict.fromkeys((0.5, 1.0, 2.0, 4.0), 50)
    means = [statistics.fmean(by_scale[scale]) for scale in sorted(by_scale)]
    assert means == sorted(means)
    assert means[-1] > high(ADDITIVE, 0.9)


def test_the_notes_say_what_part_of_a_pool_was_unique_and_new() -> None:
    strategy = made(setting(), mutants=0)
    known = different(ADDITIVE, 40, "known")
    told(strategy, known)
    pool = strategy._candidates()
    counted = Counter(proposal.arch for proposal in pool)
    assert {proposal.note["unique"] for proposal in pool} == {round(len(counted) / 60, 4)}
    new = sum(count for arch, count in counted.items() if arch not in known)
    assert {proposal.note["new"] for proposal in pool} == {round(new / 60, 4)}


def test_a_pool_of_what_is_known_is_drawn_again_with_half_the_strength() -> None:
    """The collapse guard: of 16 architectures 13 are known, the best of them."""
    strategy = made(setting(FEW), mutants=0, initial=4)
    archs = sorted(moves.enumerate_all(FEW), key=quality, reverse=True)
    told(strategy, archs[:13])
    pool = strategy._candidates()
    parts = [pool[start : start + 60] for start in range(0, len(pool), 60)]
    assert 2 < len(parts) <= 1 + REDRAWN
    for turn, part in enumerate(parts):
        assert {proposal.note["scale"] for proposal in part} == {scale / 2**turn for scale in (0.5, 1.0, 2.0, 4.0)}
    new = [float(part[0].note["new"]) for part in parts]
    assert all(share < 1 - KNOWN for share in new[:-1])
    assert max(new[2:]) > new[0]  # weaker guidance leads elsewhere
    assert strategy.ask(20, ()).arch in archs[13:]


def test_a_space_is_searched_to_its_end() -> None:
    strategy, seen = made(setting(FEW), initial=4, batch=2), list[Architecture]()
    for number in range(16):
        seen.append(strategy.ask(number, ()).arch)
        told(strategy, seen[-1:])
    assert len(set(seen)) == 16
    with pytest.raises(Exhausted, match="every candidate of the space is known"):
        strategy.ask(16, ())


@pytest.mark.parametrize(
    ("mode", "space"),
    [
        pytest.param(*case, id=f"{case[1].name}-{case[0]}", marks=() if case in SUM else pytest.mark.matrix)
        for case in PRODUCT
    ],
)
def test_every_mode_generates_what_is_legal_and_good(mode: str, space: SearchSpace) -> None:
    strategy = made(setting(space), mode=mode, mutants=0, local=0, pool=60, learning=60)
    told(strategy, different(space, 60, "known"))
    pool = [proposal.arch for proposal in strategy._candidates()]
    assert all(space.illegal(arch) is None for arch in pool)
    assert statistics.fmean(map(quality, pool)) > high(space, 0.65)
    assert quality(strategy.ask(60, ()).arch) > high(space, 0.97)


def test_modes_that_learn_go_on_from_what_they_learned() -> None:
    strategy = made(setting(), mode="refit", batch=5)
    told(strategy, different(ADDITIVE, 10, "known"))
    first = strategy._learned
    assert first is not None
    told(strategy, different(ADDITIVE, 4, "more"))
    before = {name: weight.clone() for name, weight in first.state_dict().items()}
    told(strategy, different(ADDITIVE, 1, "last"))
    assert strategy._learned is first
    assert any(not weight.equal(before[name]) for name, weight in first.state_dict().items())


# -- another study ------------------------------------------------------------------------------------------


def other(count: int, sign: int = 1) -> tuple[tuple[Architecture, float], ...]:
    """A study of another scale."""
    return tuple((arch, 100 + 7 * sign * quality(arch)) for arch in different(ADDITIVE, count, "other"))


def test_another_study_leads_from_the_first_proposal_on(play: Any) -> None:
    given = setting(warm_start=other(120))
    run = play(made(given), given, judge, 8)
    assert set(roles(run.outcomes)) <= {"generated", "mutant", "neighbour"}
    values = [outcome.values[0] for outcome in run.outcomes]
    assert values[0] > high(ADDITIVE, 0.99)
    assert statistics.fmean(values) > high(ADDITIVE, 0.97)


def test_what_another_study_likes_best_is_asked_first() -> None:
    """Not what it knows least of: nothing would be learned of this task by that."""
    strategy = made(setting(warm_start=other(120)))
    pool = [proposal.arch for proposal in strategy._candidates()]
    source = strategy._search.source
    assert source is not None
    assert strategy.ask(0, ()).arch == pool[int(numpy.argmax(source.predict(pool)[0]))]


def test_a_misleading_study_is_unlearned(play: Any) -> None:
    given = setting(warm_start=other(120, sign=-1))
    run = play(made(given), given, judge, 40)
    assert run.outcomes[0].values[0] < high(ADDITIVE, 0.05)
    assert run.incumbent.values[0] > high(ADDITIVE, 0.99)


def test_trials_in_flight_are_not_asked_again_with_another_study() -> None:
    strategy, pending = made(setting(warm_start=other(60))), list[Pending]()
    for number in range(6):
        pending.append(Pending(number, strategy.ask(number, tuple(pending))))
    assert len({trial.proposal.arch for trial in pending}) == 6


# -- NAS-Bench-201 ------------------------------------------------------------------------------------------


def queries_to_the_top(bench: Any, play: Any, strategy: Callable[..., Any], seeds: range, budget: int) -> list[int]:
    """Distinct rows until one of the best 16 by validation; `budget` + 1 where there is none."""
    values = {arch: bench.look_up(arch)["val_accuracy"] for arch in moves.enumerate_all(bench.space)}
    least = sorted(values.values())[-16]
    found = []

    class Reached(Exception):
        pass

    for seed in seeds:
        given = Setting(bench.space, seed, (Objective("val_accuracy", "max"),), identity=bench.table.identity)
        asked: list[Architecture] = []

        def measure(arch: Architecture, asked: list[Architecture] = asked) -> dict[str, float]:
            asked.append(arch)
            if values[arch] >= least:
                raise Reached
            return {"val_accuracy": values[arch]}

        try:
            play(strategy(given), given, measure, budget)
            found.append(budget + 1)
        except Reached:
            found.append(len(asked))
    return found


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_the_top_of_cifar10_is_reached_as_measured(benches: Any, play: Any, count: int) -> None:
    """Over ten seeds: a median of at most 60 queries, below evolution's, a tenth of random search's (closed form)."""

    def diffusion(given: Setting) -> Diffusion:
        return Diffusion(given, Diffusion.Config())

    def evolution(given: Setting) -> RegularizedEvolution:
        return RegularizedEvolution(given, RegularizedEvolution.Config())

    seeds = range(300, 300 + count)
    mine = statistics.median(queries_to_the_top(benches["cifar10"], play, diffusion, seeds, 60))
    theirs = statistics.median(queries_to_the_top(benches["cifar10"], play, evolution, seeds, 150))
    missed, blind = 1.0, 0
    while missed > 0.5:  # none of the best 16 of 15,625 is among the first `blind`
        missed *= 1 - 16 / (15_625 - blind)
        blind += 1
    assert mine <= 60
    assert mine < theirs
    assert mine <= blind / 10


@pytest.mark.parametrize(("count", "margin"), [(2, 0.5), pytest.param(5, 0.1, marks=pytest.mark.slow)])
def test_labels_of_cifar10_lead_to_the_top_of_cifar100(benches: Any, play: Any, count: int, margin: float) -> None:
    """200 random labels: the best of the first ten is as good as a hundred evaluations of evolution."""
    source, target = benches["cifar10"], benches["cifar100"]
    space, led, alone = NasBench201(), [], []
    for seed in range(300, 300 + count):
        labels = [(arch, source.look_up(arch)["val_accuracy"]) for arch in different(space, 200, seed, "labels")]
        for strategy, prior, queries, found in (
            (Diffusion, tuple(labels), 10, led),
            (RegularizedEvolution, (), 100, alone),
        ):
            objectives = (Objective("val_accuracy", "max"),)
            given = Setting(space, seed, objectives, warm_start=prior, identity=target.table.identity)
            run = play(strategy(given, strategy.Config()), given, target.look_up, queries)
            found.append(100 * run.incumbent.metrics["val_accuracy"])
    assert statistics.fmean(led) > statistics.fmean(alone) - margin
    assert min(led) > 72
