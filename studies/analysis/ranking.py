"""The best trials of a study by the trainings that followed: what each came to, with the error of its mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas_core.records import Run
from studies.analysis.trained import validation
from studies.records import Study


@dataclass(frozen=True, slots=True)
class Mean:
    """Of several trainings; `error`: the standard error of the mean, None of one training."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Raises statistics.StatisticsError for none."""
        several = len(values) > 1
        return cls(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if several else None)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A trial with its trainings; `metric` is the one that it is ranked by, `None` where a training has failed."""

    trial: Run
    runs: Sequence[Run]
    metric: str | None
    metrics: Mapping[str, Mean]


def ranked(study: Study, trained: Sequence[tuple[Run, Sequence[Run]]]) -> list[Ranked]:
    """Trials with their finished trainings, best mean validation value first (`trained.validation`); of equals the one
    that comes first. Those with a failed training come last."""
    found: list[tuple[float, Ranked]] = []
    for trial, runs in trained:
        names = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
        metrics = {name: Mean.of([run.metrics[name] for run in runs]) for name in names}
        if any(run.verdict.reason for run in runs) or not metrics:
            found.append((-math.inf, Ranked(trial, runs, None, metrics)))
            continue
        values = [validation(study, run) for run in runs]
        found.append((statistics.fmean(value for _, value in values), Ranked(trial, runs, values[0][0], metrics)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]
