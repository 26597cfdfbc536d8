"""Asynchronous workers on a simulated clock: a table's recorded seconds pass in no time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from nas_core.errors import NasError, TrialError, UsageError
from nas_core.evaluation import Context, Evaluator
from nas_core.failures import Failure, failure
from studies.executors import Ended, Event, Halted, Job, Reported


class Simulated:
    """`slots` workers; outcomes come in the order in which the recorded durations end them.

    A job starts when the outcome came after which it was asked, so the clock is a function of what the study has
    recorded, and a resumed study goes on at the same time of day.
    """

    apart = False

    def __init__(self, evaluator: Evaluator, slots: int) -> None:
        self.slots = slots
        self._evaluator = evaluator
        self._queue: list[tuple[float, int, list[Event]]] = []  # (end, number, what happens then)
        self._ends: dict[int, float] = {}  # of jobs that were not told yet
        self._clock = [0.0]  # when each number of told outcomes was reached

    @property
    def now(self) -> float:
        """Simulated seconds since the start of the study."""
        return self._clock[-1]

    def submit(self, job: Job) -> None:
        number, seconds = job.number, 0.0
        events: list[Event] = []
        failed: Failure | None = None
        try:
            for report in self._evaluator.evaluate(job.proposal, job.budget, Context(job.seed, job.workdir)):
                events.append(Reported(number, report))
                seconds = report.seconds
        except TrialError as error:
            failed = failure(error)
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's space or evaluator raises spoils its trial only
            failed = failure(error)
        else:
            if seconds <= 0:
                raise UsageError(
                    "the simulated clock needs recorded durations, and this evaluator has none; "
                    "name a 'seconds' column in the table's mapping"
                )
        self._ends[number] = self._clock[job.asked_after] + seconds
        heapq.heappush(self._queue, (self._ends[number], number, [*events, Ended(number, failed)]))

    def next(self, stopping: Callable[[], bool]) -> Event:
        if stopping():
            number = heapq.heappop(self._queue)[1]
            return Halted(number)
        events = self._queue[0][2]
        event = events.pop(0)
        if not events:
            heapq.heappop(self._queue)
        return event

    def drop(self, number: int) -> None:
        self._queue = [entry for entry in self._queue if entry[1] != number]
        heapq.heapify(self._queue)

    def told(self, number: int, asked_after: int, seconds: float) -> None:
        end = self._ends.pop(number, self._clock[asked_after] + seconds)
        self._clock.append(max(self.now, end))

    def close(self) -> None:
        self._queue.clear()
