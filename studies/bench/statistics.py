"""How strategies are ranked: pure functions of arrays [strategies, seeds, queries], or [strategies, seeds].

Seed i of one strategy is paired with seed i of every other. Regret is the table's optimum minus the incumbent's value,
so lower is better and 0 is the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]
    Integers = NDArray[numpy.int64]

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Friedman:
    """Friedman's test that all strategies rank alike (Demsar 2006, section 3.2.2), corrected for ties."""

    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class Paired:
    """A strategy against the baseline, seed by seed. `difference`: mean of its regret minus the baseline's, in a
    1 - `ALPHA` confidence interval of `half` to either side; the one-sided p-values are for "its regret is lower",
    alone and corrected for as many tests as strategies were compared (`holm`)."""

    difference: float
    half: float
    p_t: float
    p_wilcoxon: float
    p_t_holm: float = math.nan
    p_wilcoxon_holm: float = math.nan


def area(regret: Floats, blind: float) -> Floats:
    """Normalised area under the regret curve, [..., queries] -> [...].

    The mean of the regret after 1, 2, ..., all queries, divided by `blind`, the expected regret of one candidate
    drawn blindly (optimum minus mean of the table): 1 is never better than that draw, 0 the optimum at once.
    """
    return regret.mean(axis=-1) / blind if blind > 0 else numpy.zeros(regret.shape[:-1])


def queries_to(incumbents: Floats, threshold: float) -> Integers:
    """Queries until the incumbent reaches the threshold, [..., queries] -> [...]; queries + 1 where it does not."""
    reached = incumbents >= threshold
    return numpy.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, incumbents.shape[-1] + 1)


def reached_by(counts: Integers, share: float) -> int:
    """The smallest number of queries within which at least this share of the seeds is there, [seeds] -> number."""
    return int(numpy.quantile(counts, share, method="inverted_cdf"))


def ranks(regret: Floats) -> Floats:
    """Ranks of the strategies within each seed, 1 the lowest regret, ties their mean, [strategies, seeds]."""
    lower = (regret[:, None, :] > regret[None, :, :]).sum(axis=1)
    equal = (regret[:, None, :] == regret[None, :, :]).sum(axis=1)
    return lower + (equal + 1) / 2


def friedman(ranked: Floats) -> Friedman:
    """Friedman's chi-squared of ranks [strategies, seeds]; p = 1 where every seed ranks all strategies equal."""
    from scipy import stats

    strategies, seeds = ranked.shape
    expected = (strategies + 1) / 2
    spread = float(((ranked - expected) ** 2).sum())
    if strategies < 2 or spread == 0:
        return Friedman(0.0, 1.0)
    between = seeds**2 * float(((ranked.mean(axis=1) - expected) ** 2).sum())
    statistic = (strategies - 1) * between / spread
    return Friedman(statistic, float(stats.chi2.sf(statistic, strategies - 1)))


def critical_difference(strategies: int, seeds: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference: mean ranks that are further apart differ at level `alpha` (Demsar 2006, eq. for
    CD in section 3.2.2). The quantile is that of the studentised range for infinite degrees of freedom, over sqrt 2."""
    from scipy import stats

    if strategies < 2:
        return 0.0
    q = stats.studentized_range.ppf(1 - alpha, strategies, math.inf) / math.sqrt(2)
    return float(q) * math.sqrt(strategies * (strategies + 1) / (6 * seeds))


def paired(regret: Floats, baseline: Floats) -> Paired:
    """One-sided paired t-test and Wilcoxon's signed-rank test of "regret is lower than the baseline's", [seeds] each.

    Pairs without a difference say nothing: p = 1 where there is no other. The interval is Student's. NaN for fewer
    than two seeds.
    """
    from scipy import stats

    difference = regret - baseline
    mean = float(difference.mean())
    if len(difference) < 2:
        return Paired(mean, math.nan, math.nan, math.nan)
    if not difference.any():
        return Paired(mean, 0.0, 1.0, 1.0)
    half = float(stats.t.ppf(1 - ALPHA / 2, len(difference) - 1)) * deviation(difference) / math.sqrt(len(difference))
    if numpy.ptp(difference) == 0:  # a t statistic without a deviation
        p_t = 0.0 if mean < 0 else 1.0
    else:
        p_t = float(stats.ttest_1samp(difference, 0.0, alternative="less").pvalue)
    return Paired(mean, half, p_t, float(stats.wilcoxon(difference, alternative="less").pvalue))


def corrected(comparisons: Sequence[Paired]) -> list[Paired]:
    """The comparisons of several strategies with one baseline, with both p-values corrected by `holm`."""
    t, wilcoxon = (holm([getattr(one, name) for one in comparisons]) for name in ("p_t", "p_wilcoxon"))
    return [
        replace(one, p_t_holm=first, p_wilcoxon_holm=second)
        for one, first, second in zip(comparisons, t, wilcoxon, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979): rejecting where the result is at most
    alpha makes one false rejection or more among all tests with a probability of at most alpha.

    The smallest of m values is multiplied by m, the next by m - 1, and so on; none becomes smaller than one before it,
    or larger than 1. NaN stays NaN, and is no test.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    result, largest = [math.nan] * len(p_values), 0.0
    for place, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p))
        result[index] = largest
    return result


def deviation(values: Floats) -> float:
    """Standard deviation over the seeds (divisor n - 1); NaN for a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def groups(mean_ranks: Floats, difference: float) -> list[tuple[int, ...]]:
    """The largest sets of strategies (by index, best first) whose mean ranks lie within the critical difference."""
    order = [int(index) for index in numpy.argsort(mean_ranks, kind="stable")]
    found: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        group = tuple(index for index in order[start:] if mean_ranks[index] - mean_ranks[first] <= difference)
        if len(group) > 1 and not any(set(group) <= set(other) for other in found):
            found.append(group)
    return found
