"""A worker: makes what it works by once, a study's evaluator say, then does the jobs that it is sent.

Messages are plain data. Those of a process are JSON over one pipe per worker, so a worker that is killed in the middle
of one harms nobody else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import connection as wires
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, Self

from nas_core.errors import MachineError, NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.failures import Failure, failure
from nas_core.job import Work
from nas_core.notices import notices
from studies.executors import Job
from studies.records import StudySpec
from training.reading import Silent, reading

# From a person, a scheduler, a terminal that closes: to all processes of a group together.
STOPPING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
JOB, HALT, DROP = "job", "halt", "drop"
READY, STARTED, REPORTED, ENDED, HALTED, ERROR = "ready", "started", "reported", "ended", "halted", "error"


Message = dict[str, Any]
Listen = Callable[[bool], Message | None]


class DriverGone(Exception):
    """Nobody is there any more to work for."""


def send(pipe: Connection, kind: str, **values: Any) -> None:
    """Raises OSError when the other side is gone."""
    pipe.send_bytes(json.dumps({"kind": kind, **values}).encode())


def receive(pipe: Connection) -> Message:
    """Raises EOFError or OSError when the other side is gone."""
    message: Message = json.loads(pipe.recv_bytes())
    return message


class Remote(Protocol):
    """What another process can be told to do, as plain data."""

    def messages(self, terms: Terms) -> Iterator[Message]:
        """What a worker says while it does what it hears. Ends where another process should go on. Raises NasError for
        what spoils everything, DriverGone."""
        ...

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it; `of_plain` of the class reads it."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a worker works. `listen(True)` waits for what it is told next, `listen(False)` answers None where that
    is nothing. `device` replaces the work's own, where it is named; `here`: on the driver's machine."""

    listen: Listen
    device: str | None = None
    trial_seconds: float | None = None
    here: bool = True


@dataclass(frozen=True, slots=True)
class Candidates:
    """Work on the candidates of a study, by its evaluator (`Remote`)."""

    spec: StudySpec

    def messages(self, terms: Terms) -> Iterator[Message]:
        with reading(Silent()):
            opened = self.open(terms.device)
        yield from Worker(opened, terms).run()

    def open(self, device: str | None) -> Work:
        from studies.setup.assemble import build

        evaluator = self.spec.evaluator if device is None else self.spec.evaluator.on(device)
        return build(self.spec.model_copy(update={"evaluator": evaluator})).evaluator

    def plain(self) -> dict[str, Any]:
        return {"spec": self.spec.model_dump(mode="json")}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        return cls(StudySpec.model_validate(plain["spec"]))


@dataclass(frozen=True, slots=True)
class JobWork:
    """Work by a job of these settings (`Remote`). What it needs of other runs is read from their store."""

    spec: StudySpec
    kind: str
    settings: Mapping[str, Any]
    url: str
    files: Path

    def messages(self, terms: Terms) -> Iterator[Message]:
        with reading(Silent()):
            opened = self.open(terms.device, terms.here)
        yield from Worker(opened, terms).run()

    def open(self, device: str | None, here: bool = True) -> Work:
        from studies.jobs import JOBS
        from studies.store.store import Store

        module, _, function = JOBS[self.kind].partition(":")
        settings = self.settings if device is None else {**self.settings, "device": device}
        with contextlib.ExitStack() as opened:

            @functools.cache
            def store() -> Store:
                check_reachable(self.url, here)
                return opened.enter_context(Store(self.url, self.files, reading=True))

            work: Work = getattr(importlib.import_module(module), function)(store, self.spec, settings)
        return work

    def plain(self) -> dict[str, Any]:
        spec, settings = self.spec.model_dump(mode="json"), dict(self.settings)
        return {"spec": spec, "kind": self.kind, "settings": settings, "url": self.url, "files": str(self.files)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        spec, files = StudySpec.model_validate(plain["spec"]), Path(plain["files"])
        return cls(spec, plain["kind"], plain["settings"], plain["url"], files)


REMOTES: Mapping[str, str] = {
    "Candidates": "studies.executors.worker:Candidates",
    "JobWork": "studies.executors.worker:JobWork",
    "Searches": "studies.bench.worker:Searches",
}
"""By the name of its class."""


def check_reachable(url: str, here: bool) -> None:
    """Raises MachineError for a database that a worker on another machine than the driver's must not open."""
    if not here and url.startswith("sqlite"):
        raise MachineError(
            "it works on the database, a SQLite file, which is for processes of one machine; use PostgreSQL "
            "(--db postgresql+psycopg://...), or workers on this machine"
        )


def packed(work: Remote) -> str:
    """As JSON, which `unpacked` reads."""
    return json.dumps([type(work).__name__, work.plain()])


def unpacked(text: str) -> Remote:
    name, plain = json.loads(text)
    module, _, attribute = REMOTES[name].partition(":")
    found: Remote = getattr(importlib.import_module(module), attribute).of_plain(plain)
    return found


def main(pipe: Connection, work: str, device: str | None, trial_seconds: float | None) -> None:
    """The process. `work` is what `packed` wrote."""
    os.dup2(2, 1)  # a user's print belongs to the progress, not to the data
    deaf()
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def listen(wait: bool) -> Message | None:
        try:
            return receive(pipe) if wait or pipe.poll() else None
        except (EOFError, OSError) as error:
            raise DriverGone from error

    with contextlib.suppress(DriverGone), notices():
        for message in messages(work, Terms(listen, device, trial_seconds)):
            try:
                pipe.send_bytes(json.dumps(message).encode())
            except OSError:
                return


def messages(work: str, terms: Terms) -> Iterator[Message]:
    """What a worker says that does what `packed` wrote. Raises DriverGone."""
    try:
        yield from unpacked(work).messages(terms)
    except NasError as error:
        yield {"kind": ERROR, "type": type(error).__name__, "text": str(error)}


class Worker:
    """What evaluates, whoever brings its messages."""

    def __init__(self, work: Work, terms: Terms) -> None:
        self.work, self.trial_seconds, self.listen = work, terms.trial_seconds, terms.listen
        self.halting = self.dropped = False

    def run(self) -> Iterator[Message]:
        """Evaluate jobs as long as there is a driver."""
        yield {"kind": READY}
        while True:
            message = self.listen(True)
            assert message is not None
            if message["kind"] != JOB:
                continue  # of a job that has ended meanwhile
            self.halting = self.dropped = False
            job = Job.of_packed(message)
            yield {"kind": STARTED, "number": job.number}
            outcome, failed = yield from self.evaluate(job)
            yield {"kind": outcome, "number": job.number, "failure": None if failed is None else asdict(failed)}
            if failed is not None and "CUDA" in failed.reason:
                return  # the device's context may be spoiled: the next candidate gets a new process

    def evaluate(self, job: Job) -> Generator[Message, None, tuple[str, Failure | None]]:
        limit = self.trial_seconds
        deadline = None if limit is None else time.monotonic() + limit
        context = Context(job.seed, job.workdir, deadline, lambda: self.catch_up() or self.halting, job.keep)
        reports = self.work.evaluate(job.proposal, job.budget, context)
        try:
            for report in reports:
                yield reported(job.number, report)
                self.catch_up()
                if self.dropped or (self.halting and report.step < job.target):
                    reports.close()  # type: ignore[attr-defined]
                    return HALTED, None
        except TrialError as error:
            return ENDED, failure(error)
        except (NasError, DriverGone):
            raise
        except (Exception, SystemExit) as error:  # whatever a user's space or evaluator raises
            return ENDED, failure(error)
        return ENDED, None

    def catch_up(self) -> bool:
        """Take in what the driver has said meanwhile; False, so that it fits into conditions."""
        while (message := self.listen(False)) is not None:
            self.halting |= message["kind"] == HALT
            self.dropped |= message["kind"] == DROP
        return False


def reported(number: int, report: Report) -> Message:
    """A report in words."""
    metrics = {name: _text(value) for name, value in report.metrics.items()}
    said = {"kind": REPORTED, "number": number, "step": report.step, "metrics": metrics, "seconds": report.seconds}
    return said if report.detail is None else {**said, "detail": report.detail}


def failure_of(message: Mapping[str, Any]) -> Failure | None:
    return None if message["failure"] is None else Failure(**message["failure"])


def report_of(message: Mapping[str, Any]) -> Report:
    metrics = {name: float(value) for name, value in message["metrics"].items()}
    return Report(message["step"], metrics, message["seconds"], message.get("detail"))


def _text(value: float) -> float | str:
    """JSON has no NaN; Python's text of a number that is not finite reads back as the same."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


def deaf() -> None:
    """Hear of `STOPPING` and do nothing, in a process whose driver decides. Neither ignored nor blocked: both would be
    handed on to what a candidate starts."""
    for number in STOPPING:
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wires.wait([parent.sentinel])
        os._exit(1)
