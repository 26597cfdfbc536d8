"""Evaluations by workers elsewhere, one each: which job goes to whom, who stops, who has died, who takes too long.

What a worker is and how words get to it is a launcher's: `processes.py` starts processes. The words are those of
`worker.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

from nas_core import errors
from nas_core.errors import MachineError, NasError
from nas_core.failures import Failure
from studies.executors import Begun, Died, Ended, Event, Halted, Reported
from studies.executors import worker as protocol

STILLBORN = 3  # workers in a row that may end before they have begun with anything
GRACE = 5.0  # seconds over the time limit in which the evaluator's own check, at the next batch, comes first
TICK = 0.2  # seconds between two looks at the clock and at `stopping`


class Handle(Protocol):
    """A worker elsewhere, seen from here."""

    def send(self, kind: str, **values: Any) -> None:
        """Say something to it. That it is dead shows when it is heard."""
        ...

    def receive(self) -> dict[str, Any]:
        """What it has said next; of one that was `heard` at once. Raises EOFError or OSError where it has ended."""
        ...

    def end(self) -> str:
        """Kill it, if it lives; how it has ended, in words."""
        ...


class Task(Protocol):
    """What one worker does at a time."""

    @property
    def number(self) -> int: ...

    def packed(self) -> dict[str, Any]:
        """What the worker is told, with the number."""
        ...


H = TypeVar("H", bound=Handle)


class Launcher(Protocol[H]):
    """Starts workers that all do the same work. `advice`: what to do where they end before they have begun."""

    advice: str

    def start(self, place: int) -> H:
        """A worker at this place, from 0 on; it says when it is ready."""
        ...

    def heard(self, workers: Collection[H], seconds: float) -> Collection[H]:
        """Those that have said something or have ended, at the latest after so many seconds; none: nobody has."""
        ...

    def close(self) -> None:
        """Nobody will be started any more."""
        ...


class _Worker(Generic[H]):
    """A worker and what is known of it."""

    def __init__(self, handle: H) -> None:
        self.handle = handle
        self.ready = self.begun = False  # it can take jobs; it has come to its first one
        self.job: Task | None = None
        self.dropped = False  # the job is not wanted any more, but the worker is still at it
        self.halted = False  # it has been asked to stop
        self.kill_at: float | None = None


class Pool(Generic[H]):
    """So many `workers` of a launcher; `trial_seconds` is the time that one evaluation may take. `ahead` jobs more may
    be submitted, which wait here: a worker that has ended with one is given the next before anybody hears of it."""

    apart = True

    def __init__(
        self, launcher: Launcher[H], workers: int, trial_seconds: float | None = None, *, ahead: int = 0
    ) -> None:
        self.slots, self._places = workers + ahead, workers
        self._launcher = launcher
        self._trial_seconds = trial_seconds
        self._workers: dict[int, _Worker[H]] = {}
        self._queue: list[Task] = []  # submitted, not with a worker yet
        self._stillborn = 0  # workers in a row that died before they had begun
        self._events: list[Event] = []

    def submit(self, job: Task) -> None:
        self._queue.append(job)
        self._hand_out()

    def next(self, stopping: Callable[[], bool]) -> Event:
        while not self._events:
            self._hand_out()
            if stopping():
                self._halt()
            places = {worker.handle: place for place, worker in self._workers.items()}
            for handle in self._launcher.heard(places, 0 if self._events else TICK):
                self._read(places[handle])
            self._check_time()
        return self._events.pop(0)

    def drop(self, number: int) -> None:
        self._events = [event for event in self._events if event.number != number]
        self._queue = [job for job in self._queue if job.number != number]
        for worker in self._workers.values():
            if worker.job is not None and worker.job.number == number:
                worker.dropped = True
                worker.handle.send(protocol.DROP)

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None:
        for worker in self._workers.values():
            worker.handle.end()
        self._workers.clear()
        self._launcher.close()

    # -- the workers --------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give queued jobs to those that are ready, and start workers where there are too few. A job waits for none
        that may never come to it."""
        for worker in self._workers.values():
            if self._queue and worker.ready and worker.job is None:
                worker.job, worker.dropped, worker.halted = self._queue.pop(0), False, False
                worker.handle.send(protocol.JOB, **worker.job.packed())
        starting = sum(not worker.ready for worker in self._workers.values())
        free = (place for place in range(self._places) if place not in self._workers)
        for place in list(free)[: max(0, len(self._queue) - starting)]:
            self._workers[place] = _Worker(self._launcher.start(place))

    def _halt(self) -> None:
        """Ask every worker to stop at its next checkpoint; what no worker has begun does not begin."""
        self._events += [Halted(job.number) for job in self._queue]
        self._queue.clear()
        for worker in self._workers.values():
            if worker.job is not None and not worker.halted:
                worker.halted = True
                worker.handle.send(protocol.HALT)

    def _read(self, place: int) -> None:
        worker = self._workers[place]
        try:
            message = worker.handle.receive()
        except (EOFError, OSError):
            self._replace(place)
            return
        kind = message["kind"]
        if kind == protocol.ERROR:
            raise error_of(message)
        if kind == protocol.READY:
            worker.ready = True
        if kind == protocol.STARTED:
            worker.begun, self._stillborn = True, 0
            if self._trial_seconds is not None:
                worker.kill_at = time.monotonic() + self._trial_seconds + GRACE
            if not worker.dropped:
                self._events.append(Begun(message["number"]))
        if kind == protocol.REPORTED and not worker.dropped:
            self._events.append(Reported(message["number"], protocol.report_of(message)))
        if kind in (protocol.ENDED, protocol.HALTED):
            if not worker.dropped:
                halted = kind == protocol.HALTED
                number = message["number"]
                self._events.append(Halted(number) if halted else Ended(number, protocol.failure_of(message)))
            worker.job, worker.kill_at = None, None
            self._hand_out()

    def _replace(self, place: int) -> None:
        """A worker is dead, and its candidate is free again."""
        worker = self._workers.pop(place)
        cause, job = worker.handle.end(), worker.job
        if not worker.begun:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                raise MachineError(f"workers end before they have begun ({cause}); {self._launcher.advice}")
        if job is not None and not worker.dropped:
            self._events.append(Halted(job.number) if worker.halted else Died(job.number, cause))

    def _check_time(self) -> None:
        now = time.monotonic()
        for place, worker in list(self._workers.items()):
            if worker.job is None or worker.kill_at is None or now < worker.kill_at:
                continue
            del self._workers[place]
            worker.handle.end()
            if not worker.dropped:
                limit = f"the candidate did not stop within {self._trial_seconds:g} s, and its process was killed"
                self._events.append(Ended(worker.job.number, Failure(f"time-limit: {limit}")))


def error_of(message: Mapping[str, Any]) -> NasError:
    """The error that a worker has raised, as the same kind of error here."""
    kind = getattr(errors, message["type"], NasError)
    return kind(message["text"]) if isinstance(kind, type) and issubclass(kind, NasError) else NasError(message["text"])
