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
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import connection as wires
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.failures import Failure, failure
from nas_core.job import Work
from nas_core.strategy import Proposal
from studies.executors import Job
from studies.records import StudySpec
from training.reading import Silent, reading

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


def pack(job: Job) -> Message:
    proposal = job.proposal
    return {
        "number": job.number,
        "arch": proposal.arch.to_json(),
        "budget": job.budget,
        "proposed_budget": proposal.budget,
        "continues": proposal.continues,
        "note": dict(proposal.note),
        "target": job.target,
        "seed": job.seed,
        "workdir": str(job.workdir.absolute()),
        "asked_after": job.asked_after,
    }


def unpack(packed: Message) -> Job:
    arch = Architecture.from_json(packed["arch"])
    proposal = Proposal(arch, packed["proposed_budget"], packed["continues"], packed["note"])
    place, names = Path(packed["workdir"]), ("number", "budget", "target", "seed", "asked_after")
    return Job(proposal=proposal, workdir=place, **{name: packed[name] for name in names})


@dataclass(frozen=True, slots=True)
class Candidates:
    """Work on the candidates of a study, by its evaluator."""

    spec: StudySpec

    def open(self, device: str | None, here: bool = True) -> Work:
        from studies.setup.assemble import build

        evaluator = self.spec.evaluator if device is None else self.spec.evaluator.on(device)
        return build(self.spec.model_copy(update={"evaluator": evaluator})).evaluator


@dataclass(frozen=True, slots=True)
class JobWork:
    """Work by a job of these settings. What it needs of other runs is read from their store; `here`: on the driver's
    machine."""

    spec: StudySpec
    kind: str
    settings: Mapping[str, Any]
    url: str
    files: Path

    def open(self, device: str | None, here: bool = True) -> Work:
        from studies.jobs import JOBS
        from studies.store.store import Store

        module, _, function = JOBS[self.kind].partition(":")
        settings = self.settings if device is None else {**self.settings, "device": device}
        with contextlib.ExitStack() as opened:

            @functools.cache
            def store() -> Store:
                if not here and self.url.startswith("sqlite"):
                    raise MachineError(
                        "it reads the study's database, a SQLite file, which processes of one machine share; "
                        "use PostgreSQL (--db postgresql://...), or train on this machine"
                    )
                return opened.enter_context(Store(self.url, self.files, reading=True))

            work: Work = getattr(importlib.import_module(module), function)(store, self.spec, settings)
        return work


Remote = Candidates | JobWork
"""What another process can be told to do, as plain data; `device` replaces its own where there are several."""


def packed(work: Remote) -> str:
    """As JSON, which `unpacked` reads."""
    plain: dict[str, Any] = {"spec": work.spec.model_dump(mode="json")}
    if isinstance(work, JobWork):
        plain |= {"kind": work.kind, "settings": dict(work.settings), "url": work.url, "files": str(work.files)}
    return json.dumps(plain)


def unpacked(text: str) -> Remote:
    plain = json.loads(text)
    spec = StudySpec.model_validate(plain.pop("spec"))
    return JobWork(spec, **{**plain, "files": Path(plain["files"])}) if plain else Candidates(spec)


def main(pipe: Connection, work: str, device: str | None, trial_seconds: float | None) -> None:
    """The process. `work` is what `packed` wrote."""
    os.dup2(2, 1)  # a user's print belongs to the progress, not to the data
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def listen(wait: bool) -> Message | None:
        try:
            return receive(pipe) if wait or pipe.poll() else None
        except (EOFError, OSError) as error:
            raise DriverGone from error

    with contextlib.suppress(DriverGone):
        for message in messages(unpacked(work), device, trial_seconds, listen):
            try:
                pipe.send_bytes(json.dumps(message).encode())
            except OSError:
                return


def messages(
    work: Remote, device: str | None, trial_seconds: float | None, listen: Listen, here: bool = True
) -> Iterator[Message]:
    """What a worker says while it does what it hears; `here`: on the driver's machine. Ends where another process
    should go on. Raises DriverGone."""
    try:
        with reading(Silent()):
            opened = work.open(device, here)
        yield from Worker(opened, trial_seconds, listen).run()
    except NasError as error:
        yield {"kind": ERROR, "type": type(error).__name__, "text": str(error)}


class Worker:
    """What does the work, whoever brings its messages. `listen(True)` waits for the next one, `listen(False)` answers
    None where there is none."""

    def __init__(self, work: Work, trial_seconds: float | None, listen: Listen) -> None:
        self.work, self.trial_seconds, self.listen = work, trial_seconds, listen
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
            job = unpack(message)
            yield {"kind": STARTED, "number": job.number}
            outcome, failed = yield from self.evaluate(job)
            yield {"kind": outcome, "number": job.number, "failure": None if failed is None else asdict(failed)}
            if failed is not None and "CUDA" in failed.reason:
                return  # the device's context may be spoiled: the next candidate gets a new process

    def evaluate(self, job: Job) -> Generator[Message, None, tuple[str, Failure | None]]:
        limit = self.trial_seconds
        deadline = None if limit is None else time.monotonic() + limit
        context = Context(job.seed, job.workdir, deadline, lambda: self.catch_up() or self.halting)
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
    return {"kind": REPORTED, "number": number, "step": report.step, "metrics": metrics, "seconds": report.seconds}


def failure_of(message: Message) -> Failure | None:
    return None if message["failure"] is None else Failure(**message["failure"])


def report_of(message: Message) -> Report:
    metrics = {name: float(value) for name, value in message["metrics"].items()}
    return Report(message["step"], metrics, message["seconds"])


def _text(value: float) -> float | str:
    """JSON has no NaN; Python's text of a number that is not finite reads back as the same."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wires.wait([parent.sentinel])
        os._exit(1)
