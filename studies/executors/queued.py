"""Workers on any machine, over the study's database: what is to be done waits there, and `nas worker` takes it.

The driver stays the only writer of the study. A worker that gives no sign for the length of its lease counts as gone:
its attempt ends, and what it says of it later is not heard (`studies/store/queue.py`, `attempt_folders.py`). A driver
that is killed finds what workers have done meanwhile when it is resumed.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core import distribution
from nas_core.errors import MachineError, NasError, Notice, UsageError
from studies.executors import Begun, Died, Ended, Event, Halted, Job, Reported, attempt_folders
from studies.executors import worker as protocol
from studies.executors.pool import error_of
from studies.executors.where import Where
from studies.executors.worker import Candidates, JobWork, Remote
from studies.records import Study
from studies.store.queue import OVER, RUNNING, WAITING, Attempt, Queue, Wanted
from studies.store.store import Store

if TYPE_CHECKING:
    from studies.executors.choose import Assignment

LEASE = 60.0  # seconds without a sign
SIGNS = 12  # in the length of a lease
MARK = "queue"  # file in the study's folder by which workers know that they see the same files
DIED = "died"
_SHORTEST, _LONGEST = 0.02, 0.5  # seconds between two looks: the shorter, the less is heard
_BRIEFEST = 0.5  # seconds of a lease, at least


def name_of_this() -> str:
    """HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


def mark_of(study: Study) -> str:
    """What is in that file."""
    return f"{study.name} {study.created!r}"


@dataclass(slots=True)
class _Given:
    """What was submitted, and what was heard of it."""

    job: Job
    id: int
    begun: bool
    heard: int = 0
    furthest: float = -math.inf  # step that was reported
    halting: bool = False


class Queued:
    """`slots` evaluations at a time wait for workers, or are with one. `lease`: seconds without a sign after which a
    worker counts as gone."""

    apart = True

    def __init__(self, store: Store, study: Study, work: Remote, slots: int, lease: float = LEASE) -> None:
        self.slots = slots
        self._store, self._study, self._lease = store, study, lease
        self._work = {"kind": work.kind, "settings": dict(work.settings)} if isinstance(work, JobWork) else {}
        self._queue = Queue(store, study)
        self._session = uuid.uuid4().hex
        self._given: dict[int, _Given] = {}
        self._events: list[tuple[Event, int | None]] = []  # with the attempt that is over by it
        self._over: list[int] = []  # attempts whose end was handed on
        self._pause = _SHORTEST
        self._signed = time.monotonic()
        _leave_mark(store.folder(study), mark_of(study))
        self._queue.open(self._session, name_of_this(), distribution.version(), lease)
        warnings.warn(Notice(f"study '{study.name}' waits for workers: nas worker {study.name}"), stacklevel=2)

    def submit(self, job: Job) -> None:
        folder = os.path.relpath(job.workdir, self._store.files)
        packed = {key: value for key, value in job.packed().items() if key != "workdir"}
        found = self._queue.want(self._session, Wanted(job.number, folder, packed, self._work))
        self._given[job.number] = _Given(job, found.id, found.begun)

    def next(self, stopping: Callable[[], bool]) -> Event:
        self._forget()
        while not self._events:
            self._look(stopping())
            if not self._events:
                time.sleep(self._pause)
                self._pause = min(2 * self._pause, _LONGEST)
        self._pause = _SHORTEST
        event, over = self._events.pop(0)
        if over is not None:
            self._over.append(over)
        return event

    def drop(self, number: int) -> None:
        unheard = [over for event, over in self._events if event.number == number and over is not None]
        self._events = [one for one in self._events if one[0].number != number]
        given = self._given.pop(number, None)
        for attempt in unheard if given is None else [*unheard, given.id]:
            self._queue.remove(attempt)

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None:
        """What waits is taken back. What runs stops at its next checkpoint, and what it says until then is there for
        the next driver."""
        with contextlib.suppress(NasError):  # it may be the database that has ended the search
            self._forget()
            for given in self._given.values():
                if not self._queue.withdraw(given.id):
                    self._queue.halt(given.id)
            self._queue.leave(self._session)
        self._given.clear()

    # -- what workers say ---------------------------------------------------------------------------------

    def _look(self, halting: bool) -> None:
        if time.monotonic() - self._signed > self._lease / SIGNS:
            self._queue.sign(self._session)
            self._signed = time.monotonic()
        found = {attempt.id: attempt for attempt in self._queue.attempts(self._session)}
        for given in list(self._given.values()):
            attempt = found.get(given.id)
            if attempt is None:
                raise MachineError(
                    f"what study '{self._study.name}' wants of workers was removed from the database; resume it"
                )
            self._hear(given, attempt)
            if attempt.state == RUNNING and attempt.expired:
                self._expire(given, attempt)
            if halting and given.job.number in self._given:
                self._halt(given, attempt)

    def _hear(self, given: _Given, attempt: Attempt) -> None:
        """Take in what was said of an attempt."""
        if attempt.said == given.heard:
            return
        for message in self._queue.messages(given.id, given.heard):
            given.heard += 1
            self._take(given, message)

    def _take(self, given: _Given, message: protocol.Message) -> None:
        number, kind = given.job.number, message["kind"]
        if kind == protocol.STARTED and not given.begun:
            given.begun = True
            self._queue.count(given.id)
            self._events.append((Begun(number), None))
        elif kind == protocol.REPORTED:
            report = protocol.report_of(message)
            if report.step > given.furthest:  # a worker that goes on after another one repeats what that has said
                given.furthest = report.step
                self._events.append((Reported(number, report), None))
        elif kind == protocol.ENDED:
            self._hand_in(given)
            self._events.append((Ended(number, protocol.failure_of(message)), given.id))
            del self._given[number]
        elif kind == DIED:
            self._hand_in(given)
            self._queue.remove(given.id)  # there is no result that could be lost
            self._events.append((Died(number, message["cause"]), None))
            del self._given[number]
        elif kind == protocol.ERROR:
            self._queue.remove(given.id)
            raise error_of(message)

    def _expire(self, given: _Given, attempt: Attempt) -> None:
        if self._queue.expire(given.id):
            del self._given[given.job.number]
            cause = f"no sign of worker {attempt.worker} for {self._lease:g} s"
            self._events.append((Died(given.job.number, cause), None))

    def _halt(self, given: _Given, attempt: Attempt) -> None:
        """Take back what no worker has, and let the others stop, who give it back then."""
        if attempt.state == WAITING and self._queue.withdraw(given.id):
            self._hand_in(given)
            del self._given[given.job.number]
            self._events.append((Halted(given.job.number), None))
        elif attempt.state != OVER and not given.halting:
            given.halting = True
            self._queue.halt(given.id)

    def _hand_in(self, given: _Given) -> None:
        try:
            attempt_folders.hand_in(given.job.workdir, given.id)
        except OSError as error:
            raise MachineError(f"cannot write in '{given.job.workdir}' ({error.strerror})") from None

    def _forget(self) -> None:
        """Remove attempts whose end was handed on: what came of it is committed by now."""
        while self._over:
            self._queue.remove(self._over[0])
            del self._over[0]


def made(assignment: Assignment, where: Where) -> Queued:
    """In strict order all that a study may have pending waits at once. Raises UsageError for what is no lease, and for
    shares of a GPU."""
    for flag in ("--per-gpu", "--gpu-memory"):
        if flag in where.said:
            raise UsageError(f"{flag}: workers of a queue share a GPU where several are started on it; leave it out")
    spec = assignment.study.spec
    everything = isinstance(assignment.remote, Candidates) and spec.ordering == "strict"
    slots = spec.lag if everything else where.workers
    return Queued(assignment.store, assignment.study, assignment.remote, slots, _lease(where.given))


def _lease(given: str) -> float:
    try:
        seconds = float(given) if given else LEASE
    except ValueError:
        seconds = 0.0
    if not _BRIEFEST <= seconds < math.inf:
        raise UsageError(
            f"--executor queue:{given}: write queue:SECONDS, at least {_BRIEFEST:g}, after which a worker that gives "
            "no sign counts as gone"
        )
    return seconds


def _leave_mark(folder: Path, mark: str) -> None:
    from nas_core.files import write_atomically

    path = folder / MARK
    if not path.is_file() or path.read_text() != mark:
        write_atomically(path, mark.encode())
