"""Allocation: the least removal that meets all targets, by exact costs; several targets; what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.allocation import Choice, checked_limits, kept_count, normalised, reasons, removable
from compressors.groups.groups import Fixed, Group, Groups, Removal, Unit
from compressors.target import parse_targets
from nas_core.errors import UsageError


def group(name: str, units: int, least: int = 1, exact: bool = True) -> Group:
    return Group(name, (Unit((), ()),) * units, exact, "" if exact else "layer_norm in 'norm' reads all", least)


class Chain:
    """Costs of layers one after the other, 3 inputs and 2 outputs: products of neighbouring widths, over areas."""

    def __init__(self, groups: tuple[Group, ...], areas: tuple[int, ...]) -> None:
        self._groups, self._areas = groups, areas
        self.asked = 0

    def of(self, removed: Removal) -> Mapping[str, float]:
        self.asked += 1
        widths = [3, *(len(one.units) - len(removed.get(one.name, ())) for one in self._groups), 2]
        weights = [before * after for before, after in pairwise(widths)]
        return {
            "params": float(sum(weights)),
            "macs": float(sum(area * one for area, one in zip(self._areas, weights, strict=True))),
        }


@st.composite
def choices(draw: st.DrawFn) -> tuple[Choice, dict[str, numpy.ndarray]]:
    """Up to four groups in a chain, with scores."""
    sizes = draw(st.lists(st.integers(2, 12), min_size=1, max_size=4))
    groups = tuple(group(f"g{number}", size, draw(st.integers(1, size))) for number, size in enumerate(sizes))
    areas = tuple(draw(st.lists(st.integers(1, 20), min_size=len(sizes) + 1, max_size=len(sizes) + 1)))
    rule, multiple = draw(st.sampled_from(("uniform", "global"))), draw(st.sampled_from((1, 2, 8)))
    random = numpy.random.default_rng(draw(st.integers(0, 99)))
    scores = {one.name: random.normal(1, 1, len(one.units)) * 10.0 ** random.integers(-3, 3) for one in groups}
    return Choice(groups, Chain(groups, areas), rule, multiple), scores


def limits_of(choice: Choice, shares: Mapping[str, float]) -> dict[str, float]:
    """Between the least and the greatest of each cost."""
    least, whole = choice.cost(choice.least), choice.cost(choice.everything)
    return {name: least[name] + share * (whole[name] - least[name]) for name, share in shares.items()}


@settings(deadline=None, max_examples=60)
@given(choices(), st.floats(0, 1), st.sampled_from(("macs", "params")))
def test_what_is_kept_meets_the_target_and_no_more_goes_than_must(
    made: tuple[Choice, dict[str, numpy.ndarray]], share: float, metric: str
) -> None:
    choice, scores = made
    limits = limits_of(choice, {metric: share})
    kept = choice.kept(limits, lambda: scores)
    assert choice.meets(kept, limits)
    for one, count in zip(choice.groups, kept, strict=True):
        assert min(len(one.units), one.least) <= count <= len(one.units)
        assert count > 0
    family = choice._uniform() if choice.rule == "uniform" else choice._global(scores)
    members = [member() for member in family]
    for before, after in pairwise(members):
        assert all(one >= other for one, other in zip(before, after, strict=True))
    assert members[0] == choice.everything
    assert members[-1] == choice.least
    assert kept == next(one for one in members if choice.meets(one, limits))
    removed = choice.removal(kept, scores)
    for one, count in zip(choice.groups, kept, strict=True):
        gone = removed.get(one.name, [])
        assert len(gone) == len(one.units) - count
        stays = [place for place in range(len(one.units)) if place not in gone]
        assert not gone or scores[one.name][gone].max() <= scores[one.name][stays].min()


@settings(deadline=None, max_examples=40)
@given(choices(), st.floats(0.1, 1), st.floats(0.1, 1))
def test_several_targets_keep_no_less_than_the_greedy_rule(
    made: tuple[Choice, dict[str, numpy.ndarray]], macs: float, params: float
) -> None:
    choice, scores = made
    limits = limits_of(choice, {"macs": macs, "params": params})
    family = choice._uniform() if choice.rule == "uniform" else choice._global(scores)
    greedy = next(one for one in (member() for member in family) if choice.meets(one, limits))
    found = choice.kept(limits, lambda: scores)
    assert choice.meets(found, limits)
    assert choice.score(found, scores) >= choice.score(greedy, scores) - 1e-9
    assert all(
        found_count == kept_count(one, found_count, choice.round_to) or found_count == greedy_count
        for one, found_count, greedy_count in zip(choice.groups, found, greedy, strict=True)
    )


def test_the_programme_finds_what_exhaustive_search_does() -> None:
    """Two limits that bind on different groups: the greedy rule leaves room which the programme uses."""
    groups = (group("wide", 8), group("late", 8), group("last", 8))
    choice = Choice(groups, Chain(groups, (64, 16, 4, 1)), "uniform")
    random = numpy.random.default_rng(0)
    scores = {one.name: random.random(8) for one in groups}
    limits = limits_of(choice, {"macs": 0.35, "params": 0.6})
    greedy = choice.kept({"macs": limits["macs"]}, lambda: scores)
    found = choice.kept(limits, lambda: scores)
    near = [range(max(1, count - 2), min(8, count + 2) + 1) for count in greedy]
    best = max(choice.score(one, scores) for one in product(*near) if choice.meets(one, limits))
    assert choice.score(greedy, scores) + 0.5 < choice.score(found, scores)
    assert choice.score(found, scores) == pytest.approx(best, rel=0.02)


def test_the_programme_holds_its_solutions_against_exact_costs() -> None:
    """Costs are products of widths: where neighbours grow together the linear ones are too low."""
    groups = tuple(group(f"g{number}", 40) for number in range(4))
    choice = Choice(groups, Chain(groups, (9, 7, 5, 3, 1)), "global")
    better = 0
    for seed in range(6):
        random = numpy.random.default_rng(seed)
        scores = {one.name: random.random(40) ** 3 for one in groups}
        limits = limits_of(choice, {"macs": 0.3, "params": 0.32})
        found = choice.kept(limits, lambda scores=scores: scores)
        assert choice.meets(found, limits)
        greedy = choice._first(choice._global(scores), limits)
        better += choice.score(found, scores) > choice.score(greedy, scores)
    assert better >= 5


def test_uniform_takes_the_same_fraction_and_asks_for_no_scores() -> None:
    groups = (group("a", 10), group("b", 20), group("c", 5, least=4))
    choice = Choice(groups, Chain(groups, (1, 1, 1, 1)))

    def none() -> dict[str, numpy.ndarray]:
        raise AssertionError("scores do not decide how many are kept")

    kept = choice.kept({"params": 200.0}, none)
    assert choice.meets(kept, {"params": 200.0})
    assert abs(kept[0] / 10 - kept[1] / 20) < 0.051
    assert kept[2] == 4
    assert choice.costs.asked < 15  # by bisection, not one after the other


def test_global_compares_scores_over_the_mean_of_their_group() -> None:
    groups = (group("small", 4), group("large", 4))
    choice = Choice(groups, Chain(groups, (1, 1, 1)), "global")
    low, high = numpy.array([1.0, 4.0, 5.0, 6.0]), numpy.array([4.0, 4.1, 4.2, 4.3])
    scores = {"small": low * 1e-6, "large": high * 1e6}
    for count, kept in ((1, (3, 4)), (2, (3, 3)), (3, (3, 2))):
        assert choice._global(scores)[count]() == kept
    scaled = {name: values * factor for (name, values), factor in zip(scores.items(), (1e9, 1e-9), strict=True)}
    assert [one() for one in choice._global(scores)] == [one() for one in choice._global(scaled)]


def test_normalised_scores_of_odd_groups() -> None:
    found = normalised({"zero": numpy.zeros(3), "signed": numpy.array([-1.0, 0.0, 1.0])})
    assert found["zero"].tolist() == [1, 1, 1]
    assert found["signed"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("units", "least", "wanted", "multiple", "kept"),
    [
        (16, 1, 15, 8, 8), (16, 1, 16, 8, 16), (30, 1, 30, 8, 30), (30, 1, 29, 8, 24), (30, 1, 3, 8, 8),
        (6, 1, 3, 8, 3), (16, 9, 9, 8, 16), (10, 9, 9, 8, 9), (5, 1, 0, 1, 1), (5, 3, 0, 1, 3), (5, 0, 0, 1, 1),
    ],
)  # fmt: skip
def test_kept_counts_are_multiples_where_they_can_be(
    units: int, least: int, wanted: int, multiple: int, kept: int
) -> None:
    assert kept_count(group("g", units, least), wanted, multiple) == kept


def test_only_exact_groups_unless_others_are_asked_for() -> None:
    fixed = Fixed("head", 10, "output", "net", "is the answer")
    found = Groups((group("a", 4), group("b", 4, exact=False), group("c", 4, least=4)), (fixed,), 0.0)
    assert [one.name for one in removable(found, False)] == ["a"]
    assert [one.name for one in removable(found, True)] == ["a", "b"]
    with pytest.raises(
        UsageError,
        match=r"'b' is not exact: layer_norm in 'norm' reads.*inexact=true.*'head' stays: output",
    ):
        removable(Groups(found.groups[1:], found.fixed, 0.0), False)
    with pytest.raises(UsageError, match=r"no unit of the network can be removed$"):
        removable(Groups((), (), 0.0), True)


def test_targets_that_cannot_be() -> None:
    groups = (group("a", 4, least=2),)
    choice = Choice(groups, Chain(groups, (1, 1)))  # params 5 per unit
    base = {"params": 20.0, "macs": 20.0}
    assert checked_limits(choice, parse_targets(["params<=0.5x", "macs<=15"]), base) == {"params": 10, "macs": 15}
    with pytest.raises(UsageError, match=r"'params<=0.4x' cannot be met: the least .* is params=10, 0.5x"):
        checked_limits(choice, parse_targets(["params<=0.4x"]), base)
    found = Groups(groups, (Fixed("b", 3, "cumsum", "c", "mixes"),), 0.0)
    told = Choice(groups, choice.costs, stays=reasons(found, inexact=True))
    with pytest.raises(UsageError, match=r"is params=10, 0.5x: 'b' stays: cumsum in 'c' mixes$"):
        checked_limits(told, parse_targets(["params<=0.4x"]), base)
    with pytest.raises(UsageError, match=r"'density<=0.4x': removing units gives params and macs"):
        checked_limits(choice, parse_targets(["density<=0.4x"]), base)
    with pytest.raises(UsageError, match="there is no target"):
        checked_limits(choice, (), base)
