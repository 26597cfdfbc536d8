"""How often work on a run was begun, as it is stored: processes that end without a word are counted, others are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from nas_core.evaluation import Report
from nas_core.records import Run
from studies.store.store import Store


@dataclass(slots=True)
class Attempts:
    """The attempts on one run: `tries` of them since the furthest report, of which the one that runs may be one."""

    run: Run
    tries: int
    furthest: float  # step that any attempt has reported
    counted: bool = False  # the attempt that runs is one of `tries`
    last: Report | None = None  # of the attempt that runs

    @classmethod
    def of(cls, store: Store, run: Run) -> Self:
        """As they are stored."""
        return cls(run, run.tries, max((report.step for report in store.curve(run)), default=-math.inf))

    def start(self, store: Store, apart: bool, environment: int | None) -> None:
        """Commit that one begins; it counts from here on, or, `apart`, from where another process says that it has
        come to it."""
        self.counted = not apart
        self.tries += self.counted
        store.start(self.run.id, environment, self.tries)

    def begun(self, store: Store) -> None:
        """Commit that another process has come to it."""
        self.tries, self.counted = self.tries + 1, True
        store.count_tries(self.run.id, self.tries)

    def reported(self, report: Report) -> int | None:
        """Take in a report; the number of attempts that counts from now on, where that has changed."""
        recovered = self.tries > 1 and report.step > self.furthest
        self.tries = 1 if recovered else self.tries
        self.furthest, self.last = max(self.furthest, report.step), report
        return self.tries if recovered else None

    def halted(self, store: Store) -> None:
        """Commit that it was stopped in good order: it does not count."""
        if self.counted:
            store.count_tries(self.run.id, self.tries - 1)
