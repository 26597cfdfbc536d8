"""Proposals on their way into the store.

One that is to be evaluated is committed at once. One that is answered without an evaluation, as a search that repeats
itself makes them by the thousand, costs less than its commit: it waits for the next one, for a moment at most, and what
was to be said of it waits too. Until then a process that is killed proposes the same again.
"""

from __future__ import annotations

import time

from nas_core.records import Proposed
from studies import events
from studies.events import Listener
from studies.records import Study
from studies.search.trial import Trial
from studies.store.store import Store

MOMENT = 0.5  # seconds that a proposal may wait for the next one


class Proposals:
    """Those of one search, in the order of their numbers, and which of them the strategy was told of."""

    def __init__(self, store: Store, study: Study, listener: Listener) -> None:
        self._store, self._study, self._listener = store, study, listener
        self._waiting: list[tuple[Trial, Proposed]] = []
        self._unheard: list[events.Event] = []
        self._told: tuple[int, int] | None = None  # run and position, committed with the next proposal
        self._since = 0.0  # when the first one began to wait

    def add(self, trial: Trial, proposed: Proposed) -> None:
        """Commit a proposal, now or with the next one."""
        if not self._waiting:
            self._since = time.monotonic()
        if self._told is not None:
            proposed.tells, self._told = self._told, None
        self._waiting.append((trial, proposed))
        if not trial.finished or time.monotonic() - self._since >= MOMENT:
            self.commit()

    def tell(self, trial: Trial, position: int) -> None:
        """The strategy is told of a trial; committed with the next proposal."""
        self.commit_told()
        if not trial.run:
            next(proposed for one, proposed in reversed(self._waiting) if one is trial).told = position
        else:
            self._told = trial.run, position

    def say(self, event: events.Event) -> None:
        """Let it be heard once all that was proposed is stored."""
        self._unheard.append(event)
        if not self._waiting:
            self._speak()

    def commit(self) -> None:
        """Store what waits."""
        waiting, self._waiting = self._waiting, []  # a store that fails is not asked again at the end
        if waiting:
            runs = self._store.propose_all(self._study, [proposed for _, proposed in waiting])
            for (trial, _), run in zip(waiting, runs, strict=True):
                trial.run = run
            self._speak()

    def commit_told(self) -> None:
        """Store what was told where no proposal has come since."""
        if self._told is not None:
            self._store.tell(*self._told)
            self._told = None

    def _speak(self) -> None:
        heard, self._unheard = self._unheard, []
        for event in heard:
            self._listener(event)
