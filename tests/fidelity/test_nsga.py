"""NSGA-II and NSGA-III: survival and tournaments against brute force, reference directions, and two objectives."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
from math import comb
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.evaluation import Constraint, Objective
from nas_core.pareto import better, hypervolume
from nas_core.strategy import Outcome, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.random_search import RandomSearch
from strategies.evolution.genetic import Selection
from strategies.evolution.nsga import Crowding, Niches, Nsga2, Nsga3, directions, normalised

CELLS = NasBench201()
TWO = (Objective("val_accuracy", "max"), Objective("latency_ms", "min"))
CORNER = (0.85, -50.0)  # 85 % validation accuracy, 50 ms


def outcome(number: int, values: tuple[float, ...] | None, *violations: float) -> Outcome:
    state = State.COMPLETE if values is not None else State.REJECTED
    return Outcome(number, Proposal(Architecture("toy", {"a": number})), state, values, violations)


def numbers(outcomes: list[Outcome]) -> list[int]:
    return [one.number for one in outcomes]


@st.composite
def pools(draw: st.DrawFn) -> list[Outcome]:
    """Outcomes without ties in any objective, feasible, infeasible and unmeasured."""
    size = draw(st.integers(2, 14))
    columns = [draw(st.permutations(range(size))) for _ in range(draw(st.integers(1, 3)))]
    kinds = draw(st.lists(st.sampled_from(["feasible", "feasible", "near", "far", "unmeasured"]), min_size=size))
    violation = {"feasible": -0.5, "near": 0.5, "far": 2.0, "unmeasured": 0.5}
    return [
        outcome(n, None if kinds[n] == "unmeasured" else tuple(float(c[n]) for c in columns), violation[kinds[n]])
        for n in range(size)
    ]


def peeled(pool: list[Outcome]) -> list[list[Outcome]]:
    """Fronts by the definition: what nothing beats, then what nothing else beats, ..."""
    left, found = list(pool), []
    while left:
        found.append([one for one in left if not any(better(other, one) for other in left)])
        left = [one for one in left if one not in found[-1]]
    return found


def cuboid(one: Outcome, front: list[Outcome]) -> float:
    """Crowding distance, point by point."""
    total = 0.0
    for column in range(len(one.values or ())):
        values = sorted(other.values[column] for other in front if other.values)
        position = values.index(one.values[column]) if one.values else 0
        if position in (0, len(values) - 1):
            return math.inf
        total += (values[position + 1] - values[position - 1]) / (values[-1] - values[0])
    return total


def keys(pool: list[Outcome]) -> dict[int, tuple[int, float]]:
    """Front and negated crowding distance by number: the smaller key is the better."""
    return {one.number: (n, -round(cuboid(one, front), 9)) for n, front in enumerate(peeled(pool)) for one in front}


# -- NSGA-II --------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(pools(), st.data())
def test_survivors_are_the_best_fronts_and_the_least_crowded_of_the_last(pool: list[Outcome], data: Any) -> None:
    size = data.draw(st.integers(1, len(pool)))
    found = numbers(Crowding().survivors(pool, size, numpy.random.default_rng(0)))
    assert len(set(found)) == len(found) == size
    expected = keys(pool)
    assert sorted(expected[number] for number in found) == sorted(expected.values())[:size]


def test_the_most_crowded_of_a_front_does_not_survive() -> None:
    front = [outcome(n, (left, 10 - left)) for n, left in enumerate((0.0, 1.0, 5.0, 10.0))]
    rng = numpy.random.default_rng(0)
    assert numbers(Crowding().survivors(front, 3, rng)) == [0, 2, 3]
    assert numbers(Crowding().survivors(front, 2, rng)) == [0, 3]


@settings(max_examples=100, deadline=None)
@given(pools())
def test_mating_compares_fronts_then_crowding(pool: list[Outcome]) -> None:
    beats = Crowding().beats(pool)
    expected = keys(pool)
    for one, other in itertools.permutations(range(len(pool)), 2):
        if expected[one] != expected[other]:
            assert beats(one, other) == (expected[one] < expected[other])


# -- NSGA-III -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objectives", "divisions", "count"), [(1, 5, 1), (2, 19, 20), (3, 12, 91), (5, 6, 210)])
def test_the_reference_directions_of_das_and_dennis(objectives: int, divisions: int, count: int) -> None:
    """91 and 210 are the numbers of Deb and Jain 2014, Table I."""
    points = directions(objectives, divisions)
    assert points.shape == (count, objectives)
    assert count == comb(objectives + divisions - 1, divisions)
    assert len(numpy.unique(points, axis=0)) == count
    assert points.min() >= 0
    assert numpy.allclose(points.sum(axis=1), 1)
    assert numpy.allclose(points * divisions, (points * divisions).round())


def test_normalisation_maps_the_hyperplane_to_the_unit_simplex() -> None:
    """Points on the plane with intercepts 2, 5 and 80 below the ideal point (7, 1, -3)."""
    ideal, intercepts = numpy.array([7.0, 1.0, -3.0]), numpy.array([2.0, 5.0, 80.0])
    simplex = directions(3, 4)
    assert numpy.allclose(normalised(ideal - simplex * intercepts), simplex)


def test_normalisation_where_the_extremes_span_no_plane() -> None:
    assert normalised(numpy.array([[3.0, 5.0]])).tolist() == [[0.0, 0.0]]
    assert normalised(numpy.array([[3.0, 5.0], [1.0, 5.0]])).tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert normalised(numpy.array([[2.0, 2.0], [0.0, 0.0]])).tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_every_direction_keeps_a_member() -> None:
    """A front with one point on each of 7 directions and a crowd near one of them."""
    axes = directions(2, 6)
    crowd = [(-0.5 + step, -0.5 - step) for step in numpy.linspace(0.001, 0.02, 20).tolist()]
    pool = [outcome(n, point) for n, point in enumerate([*map(tuple, (-axes).tolist()), *crowd])]
    for seed in range(20):
        kept = numbers(Niches(axes).survivors(pool, 7, numpy.random.default_rng(seed)))
        assert kept == list(range(7))
        more = numbers(Niches(axes).survivors(pool, 9, numpy.random.default_rng(seed)))
        assert set(range(7)) < set(more)


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_the_best_fronts_survive_whole(size: int) -> None:
    pool = [outcome(n, values) for n, values in enumerate([(3.0, 1.0), (1.0, 3.0), (2.0, 0.0), (0.0, 2.0)])]
    pool += [outcome(4, (9.0, 9.0), 0.2), outcome(5, None, 0.4), outcome(6, None, 0.4), outcome(7, None, 0.5)]
    kept = numbers(Niches(directions(2, 3)).survivors(pool, size, numpy.random.default_rng(0)))
    order = [{0, 1}, {2, 3}, {4}, {5, 6}, {7}]
    assert len(kept) == size
    for position, front in enumerate(order):
        before = {n for earlier in order[:position] for n in earlier}
        assert before <= set(kept) or not front & set(kept)


def test_the_niching_tournament() -> None:
    """U-NSGA-III: front, then distance in one niche; nothing between niches; less violation first."""
    members = [
        outcome(0, (4.0, 0.0)),
        outcome(1, (3.9, 0.5)),  # beside 0, off the axis
        outcome(2, (0.0, 4.0)),
        outcome(3, (0.0, 3.0)),  # dominated by 2, in its niche
        outcome(4, (9.0, 9.0), 0.1),
        outcome(5, None, 0.4),
    ]
    beats = Niches(directions(2, 1)).beats(members)
    won = {(one, other) for one, other in itertools.permutations(range(6), 2) if beats(one, other)}
    feasible = {(one, other) for one in range(4) for other in (4, 5)}
    assert won == {(0, 1), (2, 3), (4, 5)} | feasible


@pytest.mark.parametrize("selection", [Crowding(), Niches(directions(1, 1))])
def test_with_one_objective_the_best_survive_and_win(selection: Selection) -> None:
    rng = numpy.random.default_rng(1)
    pool = [outcome(n, (float(value),)) for n, value in enumerate(rng.permutation(20))]
    kept = selection.survivors(pool, 8, rng)
    assert {one.values for one in kept} == {(float(value),) for value in range(12, 20)}
    beats = selection.beats(kept)
    for one, other in itertools.permutations(range(8), 2):
        assert beats(one, other) == better(kept[one], kept[other])


# -- searches -------------------------------------------------------------------------------------------------


def price(arch: Architecture) -> float:
    return float(sum(value in ("nor_conv_1x1", "nor_conv_3x3") for value in arch.values.values()))


@pytest.mark.parametrize("strategy", [Nsga2, Nsga3])
def test_constraints_are_learned(play: Any, strategy: Any) -> None:
    """At most one convolution is allowed: a tenth of the cells. Others are rejected and say how far off they are."""
    setting = Setting(CELLS, 0, TWO, (Constraint("price", "<=", 1.0),))
    search = strategy(setting, strategy.Config())
    feasible = 0
    for number in range(200):
        arch = search.ask(number, ()).arch
        excess = setting.constraints[0].violation(price(arch))
        feasible += excess <= 0 and number >= 100
        skips = float(sum(value == "skip_connect" for value in arch.values.values()))
        values = (skips, -float(sum(value == "avg_pool_3x3" for value in arch.values.values())))
        state = State.COMPLETE if excess <= 0 else State.REJECTED
        search.tell(Outcome(number, Proposal(arch), state, values if excess <= 0 else None, (excess,)))
    assert feasible > 60


@pytest.fixture(scope="module")
def latency(shared_data: Path) -> dict[str, float]:
    """Milliseconds on a Raspberry Pi 4 by official string."""
    with (
        gzip.open(shared_data / "nb201.csv.gz", "rt") as cells,
        gzip.open(shared_data / "nb201_latency_ms.csv.gz", "rt") as times,
    ):
        found = {row["ops"]: float(row["raspi4"]) for row in csv.DictReader(times)}
        return {row["arch"]: found[row["ops"]] for row in csv.DictReader(cells)}


@pytest.mark.parametrize("seeds", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_two_objectives(benches: Any, latency: dict[str, float], play: Any, seeds: int) -> None:
    """Percent of the true front's hypervolume after 300 rows: random reaches 89 in the median."""
    bench = benches["cifar10"]

    def measure(arch: Architecture) -> dict[str, float]:
        return {**bench.look_up(arch), "latency_ms": latency[CELLS.to_text(arch)]}

    everything = [measure(CELLS.from_text(text)) for text in latency]
    whole = hypervolume([(row["val_accuracy"], -row["latency_ms"]) for row in everything], CORNER)

    def share(strategy: Any, seed: int) -> float:
        setting = Setting(CELLS, seed, TWO, identity=bench.table.identity)
        run = play(strategy(setting, strategy.Config()), setting, measure, 300)
        return 100 * hypervolume([outcome.values for outcome in run.distinct], CORNER) / whole

    found = {kind: [share(kind, seed) for seed in range(seeds)] for kind in (Nsga2, Nsga3, RandomSearch)}
    assert numpy.median(found[Nsga2]) >= 94
    assert numpy.percentile(found[Nsga2], 10) >= 91
    assert numpy.median(found[Nsga3]) >= 93
    assert 88 <= numpy.median(found[RandomSearch]) <= 90
