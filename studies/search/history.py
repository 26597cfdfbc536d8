"""What a search remembers of the outcomes that its strategy was told."""

from __future__ import annotations

import math

from nas_core.strategy import State
from studies.search.trial import EVALUATED, Told


class History:
    """Counts of the told outcomes, the best one, and streaks."""

    def __init__(self) -> None:
        self.evaluated = 0  # trials told that count
        self.best: tuple[float, int] | None = None  # first objective and number of the best feasible trial told
        self.streak = {State.REUSED: 0, State.REJECTED: 0}
        self._best_budget = 0.0

    def learn(self, told: Told, *, again: bool) -> None:
        """Take in an outcome; `again`: its architecture was rejected before."""
        state = told.state
        self.evaluated += state in EVALUATED
        if state in (State.COMPLETE, State.REUSED) and told.value is not None:
            budget = math.inf if told.budget is None else told.budget
            if self.best is None or (budget, told.value) > (self._best_budget, self.best[0]):
                self.best, self._best_budget = (told.value, told.number), budget
        for streak in self.streak:
            if state == streak:
                self.streak[streak] += 1
            elif not again:  # what was rejected before is nothing new among what is reused
                self.streak[streak] = 0
