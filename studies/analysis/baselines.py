"""A study's baselines, and how its best trial compares with each of them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas_core.evaluation import Objective
from nas_core.records import BASELINE, RETRAIN, Run
from nas_core.strategy import State
from studies.jobs.stored import settings_of
from studies.records import Study
from studies.store.store import Store

ALPHA = 0.05
SEEDS = 2  # trainings of both that an interval needs
ACTIVE = "active_params"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best trial beside a baseline, by one metric: `best` and `value` are as reported, means over trainings of one
    recipe where both have several (`seeds` of each), else those of the evaluations. `interval`: of best minus value,
    95%, by Welch's t; None where one of them has a single figure. `says`: better, worse, no difference, or unknown.
    `sizes`: active and all parameters of the baseline over those of the best, where both are known."""

    metric: str
    value: float | None
    best: float | None
    seeds: tuple[int, int]
    interval: tuple[float, float] | None
    says: str
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        return None if self.value is None or self.best is None else self.best - self.value


def compare(store: Store, best: Run, baseline: Run, objectives: Sequence[Objective]) -> list[Comparison]:
    """By each of the study's objectives."""
    pairs, sizes = (trainings(store, best), trainings(store, baseline)), _sizes(best, baseline)
    return [replace(_compared(objective, best, baseline, *pairs), sizes=sizes) for objective in objectives]


def compared(
    store: Store, study: Study, best: Run | None, objectives: Sequence[Objective]
) -> list[tuple[Run, list[Comparison]]]:
    """Every baseline of the study, with how the best trial compares with it, where there is one."""
    runs = store.runs(study, BASELINE)
    return [(run, [] if best is None else compare(store, best, run, objectives)) for run in runs]


def trainings(store: Store, run: Run) -> dict[str, list[Run]]:
    """The complete trainings of a run, by their settings."""
    found: dict[str, list[Run]] = {}
    for child in store.children(run, RETRAIN):
        if child.state == State.COMPLETE:
            found.setdefault(json.dumps(settings_of(child), sort_keys=True), []).append(child)
    return found


def _sizes(best: Run, baseline: Run) -> dict[str, float]:
    counted = [run.metrics for run in (best, baseline)]
    if not all(ACTIVE in metrics and "params" in metrics for metrics in counted):
        return {}
    mine, its = counted
    return {name: its[name] / mine[name] for name in (ACTIVE, "params")}


def _compared(
    objective: Objective,
    best: Run,
    baseline: Run,
    ours: Mapping[str, Sequence[Run]],
    theirs: Mapping[str, Sequence[Run]],
) -> Comparison:
    metric = objective.metric
    both = [
        (
            [run.metrics[metric] for run in ours[key] if metric in run.metrics],
            [run.metrics[metric] for run in theirs[key] if metric in run.metrics],
        )
        for key in ours.keys() & theirs.keys()
    ]
    one, other = max(both, key=lambda pair: min(map(len, pair)), default=([], []))
    if min(len(one), len(other)) < SEEDS:
        mine, its = best.metrics.get(metric), baseline.metrics.get(metric)
        known = mine is not None and its is not None
        says = _says(objective.orient(mine - its), 0.0) if mine is not None and its is not None else "unknown"
        return Comparison(metric, its, mine, (int(known), int(known)), None, says)
    difference, half = welch(one, other)
    says = _says(objective.orient(difference), half)
    interval = difference - half, difference + half
    return Comparison(metric, statistics.fmean(other), statistics.fmean(one), (len(one), len(other)), interval, says)


def _says(better_by: float, half: float) -> str:
    if math.isnan(better_by):
        return "unknown"
    if abs(better_by) <= half or better_by == 0:
        return "no difference"
    return "better" if better_by > 0 else "worse"


def welch(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The difference of two means and half of its 1 - `ALPHA` confidence interval (Welch 1947): variances need not be
    equal. Both have at least two values."""
    from scipy import stats

    difference = statistics.fmean(one) - statistics.fmean(other)
    parts = [statistics.variance(values) / len(values) for values in (one, other)]
    total = sum(parts)
    if total == 0:
        return difference, 0.0
    freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    return difference, float(stats.t.ppf(1 - ALPHA / 2, freedom)) * math.sqrt(total)
