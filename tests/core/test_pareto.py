"""Fronts, crowding and hypervolume against brute force and what must hold of them."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.pareto import best, better, crowding, dominates, front, fronts, hypervolume, layers, ranks, undominated
from nas_core.strategy import Outcome, Proposal, State

Points = list[tuple[int, ...]]


@st.composite
def clouds(draw: st.DrawFn, largest: int = 14, objectives: int = 4) -> Points:
    """Points on a small grid: many ties and copies."""
    width = draw(st.integers(1, objectives))
    return draw(st.lists(st.tuples(*[st.integers(0, 5)] * width), min_size=1, max_size=largest))


@st.composite
def pools(draw: st.DrawFn) -> list[Outcome]:
    """Outcomes of one to three objectives: feasible, infeasible, unmeasured and failed ones."""
    width = draw(st.integers(1, 3))
    values = st.one_of(st.none(), st.tuples(*[st.integers(0, 3).map(float)] * width))
    violations = st.sampled_from([(), (-1.0,), (0.0,), (0.5,), (2.0,)])
    pairs = draw(st.lists(st.tuples(values, violations), min_size=1, max_size=16))
    return [outcome(number, *pair) for number, pair in enumerate(pairs)]


def outcome(number: int, values: tuple[float, ...] | None, violations: tuple[float, ...] = ()) -> Outcome:
    state = State.COMPLETE if values is not None else State.REJECTED if violations else State.FAILED
    return Outcome(number, Proposal(Architecture("toy", {"a": number})), state, values, violations)


# -- fronts ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(clouds())
def test_layers_are_what_is_left_undominated_again_and_again(points: Points) -> None:
    left = dict(enumerate(points))
    expected = [0] * len(points)
    for layer in itertools.count():
        if not left:
            break
        kept = [n for n, point in left.items() if not any(dominates(other, point) for other in left.values())]
        for position in kept:
            expected[position] = layer
            del left[position]
    assert layers(points).tolist() == expected
    assert undominated(points).tolist() == [layer == 0 for layer in expected]


@settings(max_examples=150, deadline=None)
@given(pools())
def test_ranks_are_the_longest_chains_of_better_outcomes(pool: list[Outcome]) -> None:
    """The definition of fronts by the relation itself, whatever the constraints."""
    expected: dict[int, int] = {}

    def rank(position: int) -> int:
        if position not in expected:
            above = [rank(p) for p, other in enumerate(pool) if better(other, pool[position])]
            expected[position] = 1 + max(above, default=-1)
        return expected[position]

    assert ranks(pool) == [rank(position) for position in range(len(pool))]
    assert [one for layer in fronts(pool) for one in layer] == sorted(pool, key=lambda one: rank(one.number))
    assert best(pool) is fronts(pool)[0][0]
    if front(pool):
        assert front(pool) == fronts(pool)[0]


def test_nothing_has_no_front() -> None:
    assert (ranks([]), fronts([]), front([])) == ([], [], [])
    assert front([outcome(0, None), outcome(1, (1.0,), (0.5,))]) == []


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_large_fronts_agree_with_the_matrix_of_all_pairs(objectives: int) -> None:
    points = numpy.random.default_rng(objectives).random((1500, objectives)).round(2)
    at_least = (points[:, None] >= points[None]).all(axis=2)
    above = at_least & ~at_least.T
    assert (undominated(points) == ~above.any(axis=0)).all()
    found = layers(points)
    highest = numpy.where(above, found[:, None], -1).max(axis=0)
    assert (found == highest + 1).all()


# -- crowding -------------------------------------------------------------------------------------------------


def test_crowding_by_hand() -> None:
    """Deb et al. 2002, Section III-B: the sides of the cuboid between the neighbours, each by its range."""
    found = crowding([(0, 10), (1, 6), (4, 4), (10, 0)])
    assert found.tolist() == pytest.approx([math.inf, 0.4 + 0.6, 0.9 + 0.6, math.inf])


def test_crowding_of_few_points() -> None:
    assert crowding([(3.0, 1.0)]).tolist() == [math.inf]
    assert crowding([(3.0, 1.0), (1.0, 3.0)]).tolist() == [math.inf, math.inf]
    assert crowding([(2.0,), (2.0,), (2.0,)]).tolist() == [math.inf, 0, 0]


@settings(max_examples=100, deadline=None)
@given(clouds(), st.randoms())
def test_crowding_does_not_depend_on_the_order(points: Points, random: object) -> None:
    """But for copies, of which the first has the distance."""
    distinct = list(dict.fromkeys(points))
    shuffled = list(distinct)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = dict(zip(distinct, crowding(distinct).tolist(), strict=True))
    assert dict(zip(shuffled, crowding(shuffled).tolist(), strict=True)) == found
    with_copies = crowding(points).tolist()
    seen: set[tuple[int, ...]] = set()
    for point, distance in zip(points, with_copies, strict=True):
        assert distance == (0 if point in seen else found[point])
        seen.add(point)


# -- hypervolume ----------------------------------------------------------------------------------------------


def by_inclusion_and_exclusion(points: Points, reference: tuple[int, ...]) -> Fraction:
    above = [point for point in points if all(a > b for a, b in zip(point, reference, strict=True))]
    total = Fraction(0)
    for size in range(1, len(above) + 1):
        for chosen in itertools.combinations(above, size):
            corner = [min(column) for column in zip(*chosen, strict=True)]
            total -= (-1) ** size * math.prod(a - b for a, b in zip(corner, reference, strict=True))
    return total


@settings(max_examples=150, deadline=None)
@given(clouds(largest=8, objectives=5), st.integers(0, 2))
def test_the_hypervolume_is_that_of_inclusion_and_exclusion(points: Points, corner: int) -> None:
    reference = (corner,) * len(points[0])
    assert hypervolume(points, reference) == by_inclusion_and_exclusion(points, reference)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_the_hypervolume_is_that_of_a_throw_of_darts(objectives: int) -> None:
    rng = numpy.random.default_rng(objectives)
    points = rng.random((25, objectives))
    darts = rng.random((100_000, objectives))
    hit = numpy.zeros(len(darts), dtype=bool)
    for point in points:
        hit |= (darts <= point).all(axis=1)
    share = hit.mean()
    error = math.sqrt(share * (1 - share) / len(darts))
    assert abs(hypervolume(points, [0.0] * objectives) - share) < 5 * error


@settings(max_examples=100, deadline=None)
@given(clouds(largest=10), st.randoms(), st.data())
def test_what_holds_of_every_hypervolume(points: Points, random: object, data: st.DataObject) -> None:
    width = len(points[0])
    reference = (1,) * width
    volume = hypervolume(points, reference)
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hypervolume(shuffled, reference) == volume
    order = list(range(width))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert hypervolume([tuple(point[column] for column in order) for point in points], reference) == volume
    assert hypervolume([(2 * point[0], *point[1:]) for point in points], (2, *reference[1:])) == 2 * volume
    another = data.draw(st.tuples(*[st.integers(0, 5)] * width))
    larger = hypervolume([*points, another], reference)
    inside = all(a > 1 for a in another) and not any(other == another or dominates(other, another) for other in points)
    assert larger > volume if inside else larger == volume


def test_points_at_or_below_the_reference_add_nothing() -> None:
    assert hypervolume([(1, 5), (5, 1), (0, 0)], (1, 1)) == 0
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(3, 3), (1, 50)], (1, 1)) == 4


@pytest.mark.parametrize(
    ("points", "reference"),
    [([(1.0, 2.0)], (0.0,)), ([1.0, 2.0], (0.0, 0.0)), ([(1.0, math.nan)], (0, 0)), ([(1.0, 1.0)], (0, -math.inf))],
)
def test_a_hypervolume_of_what_does_not_fit_is_refused(points: object, reference: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|must be finite"):
        hypervolume(points, reference)  # type: ignore[arg-type]
