"""What an outcome is worth to a policy gradient: one number, whatever the objectives, constraints and failures.

`rank`: the part of all candidates told so far that the outcome beats, a tie counting half, in [0, 1]. "Beats" is the
order of `nas_core.pareto`: less violation first, then Pareto dominance. It needs no scale, serves any number of
objectives, lets infeasible candidates teach through their violation, and fades to nothing in a converged search.

`value`: the papers' reward, the objective itself (oriented, higher is better) less the violation; for a single
objective only. A candidate that was not measured counts as the lowest value so far.

A failed trial is worth as little as the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy

from nas_core.errors import UsageError
from nas_core.strategy import Outcome, Setting

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["rank", "value"]


class Rewards:
    """The rewards of outcomes, each relative to those added before it; a known candidate is added once.

    Raises UsageError for values as rewards where there are several objectives.
    """

    def __init__(self, setting: Setting, kind: Kind) -> None:
        if kind == "value" and len(setting.objectives) > 1:
            raise UsageError(f"reward 'value' needs one objective, got {len(setting.objectives)}; use reward 'rank'")
        self._setting = setting
        self._kind = kind
        self._known: dict[str, None] = {}  # identities, in the order of the rows of the arrays
        self._violations: NDArray[numpy.float64] = numpy.zeros(0)
        self._values: NDArray[numpy.float64] = numpy.zeros((0, len(setting.objectives)))  # NaN: not measured

    def add(self, outcome: Outcome) -> float:
        """Take in an outcome; its reward."""
        failed = outcome.values is None and not outcome.violations
        values = numpy.full(self._values.shape[1], numpy.nan) if outcome.values is None else numpy.array(outcome.values)
        identity = self._setting.identity(outcome.proposal.arch)
        if not failed and identity not in self._known:
            self._known[identity] = None
            self._violations = numpy.append(self._violations, outcome.violation)
            self._values = numpy.vstack([self._values, values])
        if self._kind == "rank":
            return 0.0 if failed else self._rank(outcome.violation, values)
        measured = self._values[~numpy.isnan(self._values[:, 0]), 0]
        lowest = float(measured.min()) if len(measured) else 0.0
        if failed:
            return lowest - float(self._violations.max(initial=0.0))
        return (lowest if outcome.values is None else float(values[0])) - outcome.violation

    def _rank(self, violation: float, values: NDArray[numpy.float64]) -> float:
        """(candidates that it beats + half of those that it neither beats nor is beaten by) / candidates."""
        same = self._violations == violation
        blank, blanks = bool(numpy.isnan(values).any()), numpy.isnan(self._values).any(axis=1)
        above, below = (values >= self._values).all(axis=1), (values <= self._values).all(axis=1)
        won = (self._violations > violation) | same & (blanks & (not blank) | above & ~below)
        lost = (self._violations < violation) | same & (~blanks & blank | below & ~above)
        return float(0.5 + (won.sum() - lost.sum()) / (2 * len(same)))

    def state_dict(self) -> dict[str, Any]:
        return {"known": list(self._known), "violations": self._violations.copy(), "values": self._values.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._known = dict.fromkeys(state["known"])
        self._violations = numpy.array(state["violations"], dtype=numpy.float64)
        self._values = numpy.array(state["values"], dtype=numpy.float64)


class Baseline:
    """An exponential moving average of rewards, b <- d b + (1 - d) R, which begins with the first reward."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.value: float | None = None

    def advantage(self, reward: float) -> float:
        """R - b with the average of the earlier rewards, which then takes in this one."""
        before = reward if self.value is None else self.value
        self.value = self._decay * before + (1 - self._decay) * reward
        return reward - before
