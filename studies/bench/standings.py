"""What a bench comes to: every strategy's figures, and what can be said of their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from nas_core.errors import unknown
from studies.bench import statistics
from studies.bench.curves import Curves
from studies.bench.plan import Plan

if TYPE_CHECKING:
    from studies.bench.statistics import Floats

CHECKPOINTS = (25, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (divisor n - 1) over the seeds."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Floats) -> Spread:
        return cls(float(values.mean()), statistics.deviation(values))


@dataclass(frozen=True, slots=True)
class Standing:
    """One strategy. `validation` and `test` of the incumbent by number of queries; `to_top` queries to the top rows
    by share of the seeds (.5, .9), queries + 1 for a miss; `missed` seeds never got there; `area` under the regret
    curve; `rank` the mean over the seeds of the ranks by regret after all queries; `paired` against the baseline;
    seconds are medians over the seeds of the medians over a search, None where nothing was measured; `scored` is the
    median number of architectures that a search had scored by zero-cost proxies, None for none."""

    label: str
    validation: Mapping[int, Spread]
    test: Mapping[int, Spread] | None
    to_top: Mapping[float, int]
    missed: int
    area: Spread
    regret: Spread
    rank: float
    paired: statistics.Paired | None
    spent: float
    ask_seconds: float | None
    tell_seconds: float | None
    simulated_seconds: float | None
    scored: float | None


@dataclass(frozen=True, slots=True)
class Standings:
    """All strategies in the order of the plan. `groups`: which of them (by label, best rank first) the critical
    difference does not separate."""

    seeds: int
    baseline: str
    strategies: tuple[Standing, ...]
    friedman: statistics.Friedman
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def rank(curves: Curves, plan: Plan, baseline: str | None = None) -> Standings:
    """The standings after all queries, over the seeds that every strategy has finished.

    `baseline`: whom the others are tested against, by default the plan's. Raises UsageError for an unknown one.
    """
    tested = plan.baseline if baseline is None else baseline
    if tested not in curves.labels:
        raise unknown("strategy of this bench", tested, curves.labels)
    landscape = plan.landscape
    regret = landscape.optimum - curves.validation
    last = regret[:, :, -1]
    ranked = statistics.ranks(last)
    mean_ranks = ranked.mean(axis=1)
    areas = statistics.area(regret, landscape.optimum - landscape.mean)
    counts = statistics.queries_to(curves.validation, landscape.threshold)
    against = curves.labels.index(tested)
    orient = plan.objective.orient
    others = [row for row in range(len(curves.labels)) if row != against]
    comparisons = statistics.corrected([statistics.paired(last[row], last[against]) for row in others])
    paired = dict(zip(others, comparisons, strict=True))
    checkpoints = [count for count in CHECKPOINTS if count < plan.queries] + [plan.queries]

    def measured(label: str, name: str) -> float | None:
        values = [child[name] for child in curves.measured[label] if name in child]
        return median(values) if values else None

    def standing(row: int, label: str) -> Standing:
        at = {count: Spread.of(curves.validation[row, :, count - 1]) for count in checkpoints}
        return Standing(
            label=label,
            validation={count: Spread(orient(spread.mean), spread.std) for count, spread in at.items()},
            test=None
            if curves.test is None
            else {count: Spread.of(curves.test[row, :, count - 1]) for count in checkpoints},
            to_top={share: statistics.reached_by(counts[row], share) for share in (0.5, 0.9)},
            missed=int((counts[row] > plan.queries).sum()),
            area=Spread.of(areas[row]),
            regret=Spread.of(last[row]),
            rank=float(mean_ranks[row]),
            paired=paired.get(row),
            spent=measured(label, "spent") or math.nan,
            ask_seconds=measured(label, "ask_seconds"),
            tell_seconds=measured(label, "tell_seconds"),
            simulated_seconds=measured(label, "simulated_seconds"),
            scored=measured(label, "scored"),
        )

    difference = statistics.critical_difference(len(curves.labels), len(curves.seeds))
    groups = statistics.groups(mean_ranks, difference)
    return Standings(
        seeds=len(curves.seeds),
        baseline=tested,
        strategies=tuple(standing(row, label) for row, label in enumerate(curves.labels)),
        friedman=statistics.friedman(ranked),
        critical_difference=difference,
        groups=tuple(tuple(curves.labels[index] for index in group) for group in groups),
    )
