"""Rank correlations are scipy's, and their bootstrap intervals hold what they should."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies.analysis.correlation import correlate, kendall, ranks, spearman

WORST = -math.inf
SOME = st.lists(
    st.tuples(st.sampled_from([WORST, -1.5, 0.0, 1.0, 7.0]), st.floats(-5, 5, width=16)), min_size=3, max_size=40
)


@settings(deadline=None, max_examples=60)
@given(SOME)
def test_the_coefficients_are_scipy_s(pairs: list[tuple[float, float]]) -> None:
    x, y = (numpy.array(column) for column in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
        assert math.isnan(kendall(x, y))
        return
    low = numpy.where(numpy.isinf(x), -1e6, x)  # any number below all others has the rank of minus infinity
    assert spearman(x, y) == pytest.approx(stats.spearmanr(low, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(low, y).statistic, abs=1e-12)
    assert list(ranks(x)) == list(stats.rankdata(low))


def test_a_long_list_is_compared_in_blocks() -> None:
    rng = numpy.random.default_rng(0)
    x = rng.integers(50, size=1300)
    y = x + rng.normal(size=1300) * 20
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_a_resample_has_the_coefficients_of_its_copies() -> None:
    """The bootstrap by numbers of copies is the bootstrap by drawing pairs."""
    from studies.analysis.correlation import _coefficients, _Ranked, _resamples

    rng = numpy.random.default_rng(1)
    x, y, z = rng.integers(6, size=(3, 25)).astype(float)
    x[:3] = WORST
    (weights,) = _resamples(numpy.random.default_rng(2), 25, 40)
    assert (weights.sum(axis=1) == 25).all()
    found = _coefficients([_Ranked(x), _Ranked(y), _Ranked(z)], weights)
    for row in range(40):
        drawn = numpy.repeat(numpy.arange(25), weights[row].astype(int))
        a, b, c = stats.rankdata(x[drawn]), stats.rankdata(y[drawn]), stats.rankdata(z[drawn])
        assert found[0][row] == pytest.approx(numpy.corrcoef(a, b)[0, 1])
        assert found[1][row] == pytest.approx(stats.kendalltau(a, b).statistic)
        left = [value - numpy.polyval(numpy.polyfit(c, value, 1), c) for value in (a, b)]
        assert found[2][row] == pytest.approx(numpy.corrcoef(*left)[0, 1])


def test_what_a_third_list_explains_is_left_out() -> None:
    rng = numpy.random.default_rng(3)
    size = rng.normal(size=400)
    score, result = size + 0.5 * rng.normal(size=(2, 400))
    found = correlate(score, result, size)
    assert found.spearman.value > 0.7
    assert found.partial is not None
    assert abs(found.partial.value) < 0.12
    assert found.partial.low < 0 < found.partial.high
    assert math.isnan(correlate(size, result, size, resamples=20).partial.value)  # type: ignore[union-attr]


def test_intervals_cover_the_truth() -> None:
    """For a normal pair of correlation r: rho is 6/pi asin(r/2), tau is 2/pi asin(r) (Kendall 1970, chapter 9)."""
    r, rounds = 0.7, 150
    truth = 6 / math.pi * math.asin(r / 2), 2 / math.pi * math.asin(r)
    rng = numpy.random.default_rng(4)
    hits = [0, 0]
    for number in range(rounds):
        x = rng.normal(size=80)
        y = r * x + math.sqrt(1 - r * r) * rng.normal(size=80)
        found = correlate(x, y, resamples=300, seed=number)
        for kind, estimate in enumerate((found.spearman, found.kendall)):
            assert estimate.low < estimate.value < estimate.high
            hits[kind] += estimate.low <= truth[kind] <= estimate.high
    for count in hits:  # 95% +- 4 standard errors, and the small undercoverage of percentiles at 80 pairs
        assert 0.87 <= count / rounds <= 1.0


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = numpy.random.default_rng(5)
    x, y = rng.normal(size=(2, 30))
    assert correlate(x, y, seed=1) == correlate(x, y, seed=1)
    assert correlate(x, y, seed=1).spearman != correlate(x, y, seed=2).spearman
    # Ranks alone matter.
    assert correlate(numpy.exp(x), y, seed=1) == correlate(x, y, seed=1)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0], [WORST, WORST, WORST]])
def test_what_has_no_correlation(x: list[float]) -> None:
    found = correlate(x, range(len(x)), range(len(x)), resamples=10)
    assert found.count == len(x)
    for estimate in (found.spearman, found.kendall, found.partial):
        assert estimate is not None
        assert all(math.isnan(value) for value in (estimate.value, estimate.low, estimate.high))


def test_bad_lists() -> None:
    with pytest.raises(ValueError, match="NaN"):
        correlate([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="lengths"):
        correlate([1.0, 2.0], [1.0, 2.0, 3.0])
