"""Rank correlations with bootstrap confidence intervals.

Ties share their mean rank, and minus infinity is the worst rank: a score that says "worst" counts as a score. A
resample is a number of copies for each pair, so that its ranks follow from the sorted order of the whole by sums alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy

from nas_core.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

RESAMPLES = 1000
LEVEL = 0.95
_NUMBERS = 4_000_000  # of a resampled array that is held at a time
_BLOCK = 512  # rows of the pairwise comparison that are held at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient and its percentile bootstrap interval; NaN where one side is constant."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """How well one list ranks like another: Spearman's rho, Kendall's tau-b, and rho with a third list held fixed."""

    count: int
    spearman: Estimate
    kendall: Estimate
    partial: Estimate | None = None


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    given: Sequence[float] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Correlation:
    """The correlations of x [n] and y [n], and the partial one given a third list [n].

    The pairs are resampled with replacement; `seed` and n decide the resamples, so that several scores of the same
    architectures are compared on the same ones. A resample in which one side is constant is left out. Raises
    ValueError for NaN and for lists of different lengths.
    """
    columns = [
        _Ranked(numpy.asarray(values, dtype=numpy.float64)) for values in (x, y, *([] if given is None else [given]))
    ]
    count = len(columns[0].codes)
    if any(len(column.codes) != count for column in columns):
        raise ValueError("lists of different lengths have no correlation")
    rng = generator(seed, "bootstrap", count)
    found: list[list[Floats]] = [[], [], []]
    for weights in _resamples(rng, count, resamples):
        for kind, values in zip(found, _coefficients(columns, weights), strict=False):
            kind.append(values)
    whole = _coefficients(columns, numpy.ones((1, count)))
    estimates = [
        _estimate(float(value[0]), numpy.concatenate(kind) if kind else numpy.zeros(0), level)
        for value, kind in zip(whole, found, strict=False)
    ]
    return Correlation(count, estimates[0], estimates[1], estimates[2] if given is not None else None)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where a list is constant or has fewer than two values."""
    return correlate(x, y, resamples=0).spearman.value


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b; NaN where a list is constant or has fewer than two values."""
    return correlate(x, y, resamples=0).kendall.value


def ranks(values: Sequence[float]) -> Floats:
    """The ranks 1 to n, the best last; equals share their mean rank. Raises ValueError for NaN."""
    return _Ranked(numpy.asarray(values, dtype=numpy.float64)).ranks(numpy.ones((1, len(values))))[0]


class _Ranked:
    """The values of one list by their order: `codes` [n] are equal where values are, and grow with them."""

    def __init__(self, values: Floats) -> None:
        if numpy.isnan(values).any():
            raise ValueError("NaN has no rank")
        self.codes = numpy.unique(values, return_inverse=True)[1].reshape(-1).astype(numpy.int32)

    @cached_property
    def _order(self) -> NDArray[numpy.intp]:
        return numpy.argsort(self.codes, kind="stable")

    @cached_property
    def _starts(self) -> NDArray[numpy.intp]:
        """Where in the order each group of equals begins."""
        return numpy.flatnonzero(numpy.diff(self.codes[self._order], prepend=-1))

    def groups(self, weights: Floats) -> Floats:
        """How many copies [resamples, groups] each group of equals has."""
        return numpy.add.reduceat(weights[:, self._order], self._starts, axis=1)

    def ranks(self, weights: Floats) -> Floats:
        """The mean rank [resamples, n] of the copies of each value; weights [resamples, n] are numbers of copies."""
        if not len(self.codes):
            return numpy.zeros(weights.shape)
        groups = self.groups(weights)
        middle = numpy.cumsum(groups, axis=1) - (groups - 1) / 2
        return middle[:, self.codes]

    def tied(self, weights: Floats) -> Floats:
        """The number of tied pairs [resamples]."""
        groups = self.groups(weights)
        return (groups * (groups - 1)).sum(axis=1) / 2


def _resamples(rng: numpy.random.Generator, count: int, resamples: int) -> Iterator[Floats]:
    """Numbers of copies [some, n], in all `resamples` times."""
    if not count:
        return
    step = max(1, _NUMBERS // count)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = rng.integers(count, size=(some, count)) + count * numpy.arange(some)[:, None]
        yield numpy.bincount(drawn.ravel(), minlength=some * count).reshape(some, count).astype(numpy.float64)


def _coefficients(columns: Sequence[_Ranked], weights: Floats) -> list[Floats]:
    """rho, tau-b and the partial rho where there is a third column, each [resamples]."""
    x, y = columns[:2]
    if len(x.codes) < 2:
        return [numpy.full(len(weights), numpy.nan)] * len(columns)
    ranked = [column.ranks(weights) - (len(x.codes) + 1) / 2 for column in columns]
    rho = _pearson(ranked[0], ranked[1], weights)
    found = [rho, _tau(x, y, weights)]
    if len(columns) > 2:
        first, second = _pearson(ranked[0], ranked[2], weights), _pearson(ranked[1], ranked[2], weights)
        rest = (1 - first**2) * (1 - second**2)
        found.append(_divided(rho - first * second, numpy.sqrt(numpy.maximum(rest, 0))))
    return found


def _pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Of centred values."""
    covariance = (weights * x * y).sum(axis=1)
    return _divided(covariance, numpy.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1)))


def _tau(x: _Ranked, y: _Ranked, weights: Floats) -> Floats:
    """Kendall (1945): concordant minus discordant pairs, by the geometric mean of the pairs that are not tied."""
    count = len(x.codes)
    copies = weights.T.astype(numpy.float32)  # small whole numbers: all sums below 2^24 are exact
    surplus = numpy.zeros(len(weights))
    for start in range(0, count, _BLOCK):  # pairs of a block with itself, and twice those with later ones
        rows = slice(start, start + _BLOCK)
        agree = numpy.sign(x.codes[rows, None] - x.codes[start:]) * numpy.sign(y.codes[rows, None] - y.codes[start:])
        agree[:, _BLOCK:] *= 2
        surplus += (weights[:, rows].T * (agree.astype(numpy.float32) @ copies[start:])).sum(axis=0)
    pairs = count * (count - 1) / 2
    return _divided(surplus / 2, numpy.sqrt((pairs - x.tied(weights)) * (pairs - y.tied(weights))))


def _divided(above: Floats, below: Floats) -> Floats:
    """NaN instead of a division by 0, and rounding errors kept within -1 and 1."""
    safe = below > 1e-9 * max(1.0, float(numpy.abs(below).max(initial=0.0)))
    return numpy.where(safe, numpy.clip(above / numpy.where(safe, below, 1.0), -1, 1), numpy.nan)


def _estimate(value: float, resampled: Floats, level: float) -> Estimate:
    sound = resampled[numpy.isfinite(resampled)]
    if not len(sound) or numpy.isnan(value):
        return Estimate(value, numpy.nan, numpy.nan)
    low, high = numpy.quantile(sound, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))
