"""One candidate at a time, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_core.errors import NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.failures import Failure, failure
from nas_core.job import Work
from studies.executors import Ended, Event, Halted, Job, Reported
from studies.executors.time_limit import within
from studies.executors.where import Where

if TYPE_CHECKING:
    from studies.executors.choose import Assignment


@dataclass(slots=True)
class _Running:
    job: Job
    reports: Generator[Report]
    step: float = -1.0  # of the last report


class Inline:
    """Evaluates in this process; `trial_seconds` is the time that one candidate may take."""

    slots = 1
    apart = False

    def __init__(self, work: Work, trial_seconds: float | None = None) -> None:
        self._work = work
        self._trial_seconds = trial_seconds
        self._running: _Running | None = None
        self._stopping: Callable[[], bool] = lambda: False

    def submit(self, job: Job) -> None:
        limit = self._trial_seconds
        context = Context(
            seed=job.seed,
            workdir=job.workdir,
            deadline=None if limit is None else time.monotonic() + limit,
            stopping=lambda: self._stopping(),
            keep=job.keep,
        )
        reports = self._work.evaluate(job.proposal, job.budget, context)
        self._running = _Running(job, within(reports, limit))

    def next(self, stopping: Callable[[], bool]) -> Event:
        running = self._running
        assert running is not None
        self._stopping = stopping
        # Only between reports, where a checkpoint has been written: a candidate that is asked to stop in its last
        # step, or before its first, goes on to the next report.
        if 0 <= running.step < running.job.target and stopping():
            self._close()
            return Halted(running.job.number)
        failed: Failure | None = None
        try:
            report = next(running.reports, None)
        except TrialError as error:
            failed = failure(error)
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's space or evaluator raises spoils its trial only
            failed = failure(error)
        else:
            if report is not None:
                running.step = report.step
                return Reported(running.job.number, report)
        self._running = None
        return Ended(running.job.number, failed)

    def drop(self, number: int) -> None:
        if self._running is not None and self._running.job.number == number:
            self._close()

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._running is not None:
            self._running.reports.close()
            self._running = None


def made(assignment: Assignment, where: Where) -> Inline:
    return Inline(assignment.work, assignment.trial_seconds)
