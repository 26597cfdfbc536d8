"""The statistics of `nas bench`: values computed by hand, published tables, and scipy's own tests."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy
import pytest
from scipy import stats

from studies.bench import curves, statistics

# Demsar (2006), table 5(a): q at alpha = .05 for k strategies.
Q_05 = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


def test_area_is_the_mean_regret_in_units_of_a_blind_draw() -> None:
    regret = numpy.array([[[4.0, 2.0, 0.0], [6.0, 6.0, 6.0]]])
    assert statistics.area(regret, blind=8.0).tolist() == [[0.25, 0.75]]


def test_area_of_a_table_whose_rows_are_all_equal_is_nothing() -> None:
    assert statistics.area(numpy.zeros((1, 2, 3)), blind=0.0).tolist() == [[0.0, 0.0]]


def test_queries_to_counts_from_one_and_a_miss_is_one_more_than_the_budget() -> None:
    incumbents = numpy.array([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0], [1.0, 1.0, 2.9]])
    assert statistics.queries_to(incumbents, 3.0).tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([1, 2, 3, 4], 0.5, 2),  # two of four seeds are there within two queries
        ([1, 2, 3], 0.5, 2),
        ([5, 1, 9, 101], 0.9, 101),  # one seed in four has missed
        (list(range(1, 11)), 0.9, 9),
    ],
)
def test_reached_by_is_when_that_share_of_the_seeds_is_there(counts: list[int], share: float, expected: int) -> None:
    assert statistics.reached_by(numpy.array(counts), share) == expected


def test_ranks_share_ties() -> None:
    regret = numpy.array([[0.3, 0.1], [0.1, 0.1], [0.3, 0.1]])
    assert statistics.ranks(regret).T.tolist() == [[2.5, 1.0, 2.5], [2.0, 2.0, 2.0]]


@pytest.mark.parametrize("levels", [1000, 4])
def test_ranks_and_friedman_agree_with_scipy(levels: int) -> None:
    regret = numpy.random.default_rng(levels).integers(0, levels, (5, 30)).astype(float)
    ranked = statistics.ranks(regret)
    assert ranked.T.tolist() == [stats.rankdata(seed).tolist() for seed in regret.T]
    expected = stats.friedmanchisquare(*regret)
    found = statistics.friedman(ranked)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_friedman_by_hand() -> None:
    # 3 strategies, 4 seeds, always the same order: 12 n / (k (k + 1)) * sum of (mean rank - 2)^2 = 4 * 2 = 8.
    found = statistics.friedman(numpy.array([[1.0] * 4, [2.0] * 4, [3.0] * 4]))
    assert found.statistic == pytest.approx(8.0)
    assert found.p == pytest.approx(math.exp(-4.0))  # chi-squared with 2 degrees of freedom


def test_friedman_of_equals_and_of_one_strategy_finds_nothing() -> None:
    assert statistics.friedman(numpy.full((3, 4), 2.0)) == statistics.Friedman(0.0, 1.0)
    assert statistics.friedman(numpy.ones((1, 4))) == statistics.Friedman(0.0, 1.0)


@pytest.mark.parametrize(("strategies", "q"), Q_05.items())
def test_critical_difference_has_the_published_quantiles(strategies: int, q: float) -> None:
    expected = q * math.sqrt(strategies * (strategies + 1) / (6 * 30))
    assert statistics.critical_difference(strategies, 30) == pytest.approx(expected, rel=5e-4)


def test_critical_difference_of_five_strategies_and_thirty_seeds() -> None:
    assert statistics.critical_difference(5, 30) == pytest.approx(1.1136, abs=2e-4)
    assert statistics.critical_difference(1, 30) == 0.0


def test_paired_by_hand() -> None:
    # Differences -1, -2, -3, -4: t = -2.5 / (1.290994 / 2) = -3.872983 with 3 degrees of freedom; all four signs
    # are negative, which has probability 1/16.
    found = statistics.paired(numpy.array([1.0, 1.0, 1.0, 1.0]), numpy.array([2.0, 3.0, 4.0, 5.0]))
    assert found.difference == -2.5
    assert found.half == pytest.approx(3.182446 * 1.290994 / 2, rel=1e-5)  # 97.5% quantile of t with 3 degrees
    assert found.p_t == pytest.approx(stats.t.cdf(-3.8729833, 3))
    assert found.p_t == pytest.approx(0.01523, abs=1e-5)
    assert found.p_wilcoxon == pytest.approx(1 / 16)


def test_holm_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1; the last may not be below the one before it.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.4, math.nan, 0.9]) == pytest.approx([0.8, math.nan, 0.9], nan_ok=True)
    assert statistics.holm([0.7, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_keeps_false_rejections_rare() -> None:
    """Ten tests of true hypotheses: about 40% of the uncorrected families reject one, at most 5% of the corrected."""
    draws = numpy.random.default_rng(0).random((2_000, 10))
    uncorrected = (draws.min(axis=1) <= 0.05).mean()
    corrected = numpy.mean([min(statistics.holm(list(row))) <= 0.05 for row in draws])
    assert uncorrected == pytest.approx(1 - 0.95**10, abs=0.03)
    assert corrected == pytest.approx(0.05, abs=0.015)


def test_corrected_leaves_each_comparison_in_its_place() -> None:
    rng = numpy.random.default_rng(1)
    base = rng.random(20)
    found = [statistics.paired(base - shift + rng.random(20) / 5, base) for shift in (0.5, 0.0, 0.1)]
    for name in ("p_t", "p_wilcoxon"):
        alone = [getattr(one, name) for one in found]
        assert [getattr(one, f"{name}_holm") for one in statistics.corrected(found)] == statistics.holm(alone)
    assert [one.difference for one in statistics.corrected(found)] == [one.difference for one in found]


def test_paired_is_one_sided() -> None:
    better, worse = numpy.array([0.0, 0.1, 0.0, 0.3]), numpy.array([1.0, 1.2, 0.9, 1.1])
    assert statistics.paired(better, worse).p_t < 0.01
    assert statistics.paired(worse, better).p_t > 0.99


def test_paired_without_differences_or_deviation() -> None:
    same = numpy.array([0.5, 0.7, 0.9])
    assert statistics.paired(same, same) == statistics.Paired(0.0, 0.0, 1.0, 1.0)
    assert statistics.paired(numpy.zeros(3), numpy.ones(3)) == statistics.Paired(-1.0, 0.0, 0.0, 1 / 8)
    assert statistics.paired(numpy.ones(3), numpy.zeros(3)).p_t == 1.0
    alone = statistics.paired(same[:1], same[:1])
    assert math.isnan(alone.p_t)
    assert math.isnan(alone.half)


def test_deviation_divides_by_one_less() -> None:
    assert statistics.deviation(numpy.array([1.0, 3.0])) == pytest.approx(math.sqrt(2))
    assert math.isnan(statistics.deviation(numpy.array([1.0])))


def test_groups_are_maximal_and_within_the_difference() -> None:
    mean_ranks = numpy.array([1.0, 4.0, 2.1, 3.0])
    found = statistics.groups(mean_ranks, 1.1)
    assert found == [(0, 2), (2, 3), (3, 1)]
    assert statistics.groups(mean_ranks, 0.5) == []
    assert statistics.groups(mean_ranks, 9.0) == [(0, 2, 3, 1)]
    for group in found:
        assert all(mean_ranks[a] <= mean_ranks[b] for a, b in pairwise(group))


NAN = math.nan
BLIND = (0.1, 0.01)


@pytest.mark.parametrize(
    ("trials", "validation", "test"),
    [
        # The earliest of equals stays; the last incumbent stays to the end.
        ([(1, 0.5, 1.0), (1, 0.5, 2.0), (1, 0.4, 3.0), (1, 0.6, 4.0)], [0.5, 0.5, 0.5, 0.6, 0.6], [1, 1, 1, 4, 4]),
        # A failed evaluation is a query too; before the first value the blind draw, which a worse one replaces.
        ([(1, NAN, NAN), (1, 0.05, 1.0)], [0.1, 0.05, 0.05, 0.05, 0.05], [0.01, 1, 1, 1, 1]),
        # Parts of a query add up, and only full evaluations have a value.
        (
            [(0.25, NAN, NAN), (0.25, NAN, NAN), (1, 0.5, 1.0), (1, 0.7, 2.0), (0.5, NAN, NAN), (1, 0.9, 3.0)],
            [0.1, 0.5, 0.7, 0.9, 0.9],
            [0.01, 1, 2, 3, 3],
        ),
        # What is not paid within the queries does not count.
        ([(0.5, NAN, NAN), *[(1, 0.2, 1.0)] * 4, (1, 0.9, 9.0)], [0.1, 0.2, 0.2, 0.2, 0.2], [0.01, 1, 1, 1, 1]),
        # Ten tenths are one query, however they are rounded.
        ([(0.1, NAN, NAN)] * 10 + [(1, 0.3, 5.0)], [0.1, 0.3, 0.3, 0.3, 0.3], [0.01, 5, 5, 5, 5]),
        ([], [0.1] * 5, [0.01] * 5),
    ],
)
def test_incumbents_query_by_query(trials: list[Any], validation: list[float], test: list[float]) -> None:
    assert curves.incumbents(trials, 5, BLIND).tolist() == [validation, test]
