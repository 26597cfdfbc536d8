"""The curves of trials that may end early, and whether a pruner ends one."""

from __future__ import annotations

import math

from nas_core.evaluation import Objective, Report
from nas_core.strategy import State
from studies.search.trial import Curve, Trial
from studies.setup.assemble import StudyObjects


class EarlyStopping:
    """By the first objective. `objective` is None where no trial of the study may end before its budget."""

    def __init__(self, parts: StudyObjects) -> None:
        ends_early = parts.early_stop is not None or getattr(parts.evaluator, "ends_early", False)
        self.objective: Objective | None = parts.objectives[0] if ends_early else None
        self._pruner = parts.early_stop
        self._told: list[Curve] = []  # of the told outcomes, in their order; only where a pruner reads them

    def extend(self, trial: Trial, report: Report) -> bool:
        """Add a report to a trial's curve; False where it has no finite value."""
        if self.objective is None:
            return False
        value = report.metrics.get(self.objective.metric, math.nan)
        if not math.isfinite(value):
            return False
        if not trial.curve or trial.curve[-1][0] < report.step:
            trial.curve.append((report.step, self.objective.orient(value)))
        return True

    def prunes(self, trial: Trial, report: Report) -> bool:
        """Whether the pruner ends this trial, by its own curve and those of the outcomes told before it was asked."""
        if self._pruner is None or not self.extend(trial, report):
            return False
        return self._pruner.prune(trial.curve, self._told[: trial.asked_after])

    def learn(self, state: State, curve: Curve) -> None:
        """Take in the curve of an outcome."""
        if self._pruner is not None:
            self._told.append(list(curve) if state == State.COMPLETE else [])
