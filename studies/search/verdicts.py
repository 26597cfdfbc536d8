"""What metrics are worth: values and violations, before and after an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nas_core.architecture import Architecture
from nas_core.errors import TrialError
from nas_core.failures import UNSOUND, failure
from nas_core.records import Verdict
from nas_core.space import unsound
from nas_core.strategy import State
from studies.setup.assemble import StudyObjects


class Verdicts:
    """Turns metrics into verdicts, by the objectives and constraints of a study."""

    def __init__(self, parts: StudyObjects) -> None:
        self.parts = parts
        needed = [*(c.metric for c in parts.constraints), *(o.metric for o in parts.objectives)]
        metrics = parts.evaluator.metrics
        self._costs = {metric.name for metric in metrics if metric.cost}
        self._repeatable = [metric.name for metric in metrics if metric.cost and not metric.measured]
        named = list(dict.fromkeys(name for name in needed if name in self._costs))
        spreads = [metric.name for metric in metrics if metric.spread_of in named and metric.name not in named]
        self._needed = [*named, *spreads]

    @property
    def counts_costs(self) -> bool:
        """Whether `before` asks the evaluator for costs."""
        return bool(self._needed)

    def before(self, arch: Architecture) -> tuple[Verdict | None, dict[str, float]]:
        """A verdict of REJECTED where the architecture is illegal, unsound, or violates a constraint on costs (FAILED
        where these cannot be computed), and the costs that the study's objectives and constraints name."""
        reason = self.parts.space.illegal(arch)
        if reason:
            return Verdict(State.REJECTED, f"illegal: {reason}"), {}
        reason = unsound(self.parts.space, arch)
        if reason:
            return Verdict(State.REJECTED, f"{UNSOUND}{reason}"), {}
        if not self._needed:
            return None, {}
        try:
            costs = dict(self.parts.evaluator.costs(arch, self._needed))
        except TrialError as error:  # it cannot even be built
            failed = failure(error)
            return Verdict(State.FAILED, failed.reason, traceback=failed.traceback), {}
        violations = tuple(
            constraint.violation(costs[constraint.metric]) if constraint.metric in costs else 0.0
            for constraint in self.parts.constraints
        )
        broken = [
            f"{constraint.metric} is {costs[constraint.metric]:g}, not {constraint.relation}{constraint.bound:g}"
            for constraint, violation in zip(self.parts.constraints, violations, strict=True)
            if violation > 0
        ]
        if broken:
            return Verdict(State.REJECTED, "constraint: " + ", ".join(broken), None, violations), costs
        return None, costs

    def after(self, metrics: Mapping[str, float], seconds: float | None) -> Verdict:
        """The verdict of an evaluation with these final metrics; FAILED where one that counts is not a number."""
        wanted = [*(one.metric for one in self.parts.objectives), *(one.metric for one in self.parts.constraints)]
        for name in wanted:
            if name not in metrics:
                return Verdict(State.FAILED, f"no-metric: the evaluator reported no '{name}'", seconds=seconds)
            if not math.isfinite(metrics[name]):
                return Verdict(State.FAILED, f"not-finite: '{name}' is {metrics[name]}", seconds=seconds)
        values = tuple(objective.orient(metrics[objective.metric]) for objective in self.parts.objectives)
        violations = tuple(constraint.violation(metrics[constraint.metric]) for constraint in self.parts.constraints)
        return Verdict(State.COMPLETE, None, values, violations, seconds)

    def reuse(self, measured: Mapping[str, float], arch: Architecture, costs: Mapping[str, float]) -> dict[str, float]:
        """What was learned of what was `measured` of the source, with the architecture's own costs: equal function is
        not equal cost."""
        learned = {name: value for name, value in measured.items() if name not in self._costs}
        return {**learned, **self.parts.evaluator.costs(arch, self._repeatable), **costs}
