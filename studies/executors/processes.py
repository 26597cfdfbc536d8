"""Local worker processes: one candidate each, and one device each. A worker that dies costs only its candidate.

The standard library's pools share queues, whose lock dies with a killed worker, and hand over results at the end
only; here every worker has a pipe of its own, over which reports come as they are made.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection as wires
from multiprocessing import resource_tracker
from typing import Any

from nas_core import errors
from nas_core.errors import MachineError, NasError
from nas_core.failures import Failure
from studies.executors import Begun, Died, Ended, Event, Halted, Job, Reported
from studies.executors import worker as protocol
from studies.executors.worker import Remote

STILLBORN = 3  # processes in a row that may end before they are ready
GRACE = 5.0  # seconds over the time limit in which the evaluator's own check, at the next batch, comes first
TICK = 0.2  # seconds between two looks at the clock and at `stopping`


class _Process:
    """A worker process and what is known of it."""

    def __init__(self, work: str, device: str | None, trial_seconds: float | None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, far = spawn.Pipe()
        self.process = spawn.Process(target=protocol.main, args=(far, work, device, trial_seconds), daemon=True)
        with uninterrupted():
            self.process.start()
        far.close()
        self.ready = False
        self.job: Job | None = None
        self.dropped = False  # the job is not wanted any more, but the worker is still at it
        self.halted = False  # it has been asked to stop
        self.kill_at: float | None = None

    def send(self, kind: str, **values: Any) -> None:
        """A dead worker is noticed when its pipe is read."""
        with contextlib.suppress(OSError):
            protocol.send(self.pipe, kind, **values)

    def end(self) -> int | None:
        """Kill it, if it lives; its exit code."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


class Processes:
    """`slots` spawned workers that all do the same `work`. `devices` are given out in turn; none: its own."""

    apart = True

    def __init__(
        self, work: Remote, slots: int, trial_seconds: float | None = None, devices: tuple[str, ...] = ()
    ) -> None:
        self.slots = slots
        self._work = protocol.packed(work)
        self._trial_seconds = trial_seconds
        self._devices = devices
        self._workers: dict[int, _Process] = {}
        self._queue: list[Job] = []  # submitted, not with a worker yet
        self._stillborn = 0  # processes in a row that died before they were ready
        self._events: list[Event] = []

    def submit(self, job: Job) -> None:
        self._queue.append(job)
        self._hand_out()

    def next(self, stopping: Callable[[], bool]) -> Event:
        while not self._events:
            self._hand_out()
            if stopping():
                self._halt()
            pipes = {worker.pipe: place for place, worker in self._workers.items()}
            for pipe in wires.wait(list(pipes), TICK):
                self._read(pipes[pipe])  # type: ignore[index]
            self._check_time()
        return self._events.pop(0)

    def drop(self, number: int) -> None:
        self._events = [event for event in self._events if event.number != number]
        self._queue = [job for job in self._queue if job.number != number]
        for worker in self._workers.values():
            if worker.job is not None and worker.job.number == number:
                worker.dropped = True
                worker.send(protocol.DROP)

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    # -- the workers --------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give queued jobs to idle workers, and start workers where there are too few."""
        for place in range(self.slots):
            if not self._queue:
                return
            if place not in self._workers:
                device = self._devices[place % len(self._devices)] if self._devices else None
                self._workers[place] = _Process(self._work, device, self._trial_seconds)
            worker = self._workers[place]
            if worker.job is None:
                worker.job, worker.dropped, worker.halted = self._queue.pop(0), False, False
                worker.send("job", **protocol.pack(worker.job))

    def _halt(self) -> None:
        """Ask every worker to stop at its next checkpoint; what no worker has begun does not begin."""
        self._events += [Halted(job.number) for job in self._queue]
        self._queue.clear()
        for worker in self._workers.values():
            if worker.job is not None and not worker.halted:
                worker.halted = True
                worker.send(protocol.HALT)

    def _read(self, place: int) -> None:
        worker = self._workers[place]
        try:
            message = protocol.receive(worker.pipe)
        except (EOFError, OSError):
            self._replace(place)
            return
        kind = message["kind"]
        if kind == protocol.ERROR:
            raise _error(message)
        if kind == protocol.READY:
            worker.ready, self._stillborn = True, 0
        if kind == protocol.STARTED:
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

    def _replace(self, place: int) -> None:
        """A worker is dead, and its candidate is free again."""
        worker = self._workers.pop(place)
        code, job = worker.end(), worker.job
        cause = f"exit code {code}" if code is None or code >= 0 else _signal(-code)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                raise MachineError(f"worker processes end before they can start ({cause}); use fewer --workers")
        if job is None or worker.dropped:
            return
        if worker.halted:
            self._events.append(Halted(job.number))
            return
        if worker.ready:
            self._events.append(Died(job.number, cause))
        else:
            self._queue.insert(0, job)

    def _check_time(self) -> None:
        now = time.monotonic()
        for place, worker in list(self._workers.items()):
            if worker.job is None or worker.kill_at is None or now < worker.kill_at:
                continue
            del self._workers[place]
            worker.end()
            if not worker.dropped:
                limit = f"the candidate did not stop within {self._trial_seconds:g} s, and its process was killed"
                self._events.append(Ended(worker.job.number, Failure(f"time-limit: {limit}")))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that are started inside never hear of Ctrl-C, which reaches all of them: the driver decides. It hears
    of one that comes meanwhile afterwards."""
    resource_tracker.ensure_running()  # whose start would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, which the system sends when memory runs out" if number == signal.SIGKILL else name


def _error(message: Mapping[str, Any]) -> NasError:
    """The error that a worker has raised, as the same kind of error here."""
    kind = getattr(errors, message["type"], NasError)
    return kind(message["text"]) if isinstance(kind, type) and issubclass(kind, NasError) else NasError(message["text"])
