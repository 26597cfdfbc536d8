"""A worker process: makes what it works by once, a study's evaluator say, then does the jobs that it is sent.

Messages are JSON over one pipe per worker, so a worker that is killed in the middle of one harms nobody else.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing import connection as wires
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nas_core.architecture import Architecture
from nas_core.errors import NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.failures import Failure, failure
from nas_core.job import Work
from nas_core.strategy import Proposal
from studies.executors import Job
from studies.records import StudySpec
from training.reading import Silent, reading

JOB, HALT, DROP = "job", "halt", "drop"
READY, STARTED, REPORTED, ENDED, HALTED, ERROR = "ready", "started", "reported", "ended", "halted", "error"


def send(pipe: Connection, kind: str, **values: Any) -> None:
    """Raises OSError when the other side is gone."""
    pipe.send_bytes(json.dumps({"kind": kind, **values}).encode())


def receive(pipe: Connection) -> dict[str, Any]:
    """Raises EOFError or OSError when the other side is gone."""
    message: dict[str, Any] = json.loads(pipe.recv_bytes())
    return message


def pack(job: Job) -> dict[str, Any]:
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
        "workdir": str(job.workdir),
        "asked_after": job.asked_after,
    }


def unpack(packed: dict[str, Any]) -> Job:
    arch = Architecture.from_json(packed["arch"])
    proposal = Proposal(arch, packed["proposed_budget"], packed["continues"], packed["note"])
    place, names = Path(packed["workdir"]), ("number", "budget", "target", "seed", "asked_after")
    return Job(proposal=proposal, workdir=place, **{name: packed[name] for name in names})


@dataclass(frozen=True, slots=True)
class Candidates:
    """Work on the candidates of a study, by its evaluator."""

    spec: StudySpec

    def open(self, device: str | None) -> Work:
        from studies.setup.assemble import build

        evaluator = self.spec.evaluator if device is None else self.spec.evaluator.on(device)
        return build(self.spec.model_copy(update={"evaluator": evaluator})).evaluator


@dataclass(frozen=True, slots=True)
class JobWork:
    """Work by a job of these settings. What it needs of other runs is read from their store."""

    spec: StudySpec
    kind: str
    settings: Mapping[str, Any]
    url: str
    files: Path

    def open(self, device: str | None) -> Work:
        from studies.jobs import JOBS
        from studies.store.store import Store

        module, _, function = JOBS[self.kind].partition(":")
        settings = self.settings if device is None else {**self.settings, "device": device}
        with Store(self.url, self.files, reading=True) as store:
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
    try:
        with reading(Silent()):
            opened = unpacked(work).open(device)
        Worker(pipe, opened, trial_seconds).run()
    except (EOFError, OSError):
        return  # the driver is gone
    except NasError as error:
        send(pipe, ERROR, type=type(error).__name__, text=str(error))


class Worker:
    """What works behind a pipe."""

    def __init__(self, pipe: Connection, work: Work, trial_seconds: float | None) -> None:
        self.pipe, self.work = pipe, work
        self.trial_seconds = trial_seconds
        self.halting = self.dropped = False

    def run(self) -> None:
        """Evaluate jobs until the driver closes the pipe."""
        send(self.pipe, READY)
        while True:
            message = receive(self.pipe)
            if message["kind"] in (HALT, DROP):
                continue  # of a job that has ended meanwhile
            self.halting = self.dropped = False
            job = unpack(message)
            send(self.pipe, STARTED, number=job.number)
            outcome, failed = self.evaluate(job)
            send(self.pipe, outcome, number=job.number, failure=None if failed is None else asdict(failed))
            if failed is not None and "CUDA" in failed.reason:
                return  # the device's context may be spoiled: the next candidate gets a new process

    def evaluate(self, job: Job) -> tuple[str, Failure | None]:
        limit = self.trial_seconds
        deadline = None if limit is None else time.monotonic() + limit
        context = Context(job.seed, job.workdir, deadline, lambda: self.listen() or self.halting)
        reports = self.work.evaluate(job.proposal, job.budget, context)
        try:
            for report in reports:
                self.report(job.number, report)
                self.listen()
                if self.dropped or (self.halting and report.step < job.target):
                    reports.close()  # type: ignore[attr-defined]
                    return HALTED, None
        except TrialError as error:
            return ENDED, failure(error)
        except (NasError, EOFError, OSError):
            raise
        except (Exception, SystemExit) as error:  # whatever a user's space or evaluator raises
            return ENDED, failure(error)
        return ENDED, None

    def report(self, number: int, report: Report) -> None:
        send(self.pipe, number=number, **reported(report))

    def listen(self) -> bool:
        """Take in what the driver has said meanwhile; False, so that it fits into conditions."""
        while self.pipe.poll():
            kind = receive(self.pipe)["kind"]
            self.halting |= kind == HALT
            self.dropped |= kind == DROP
        return False


def failure_of(message: Mapping[str, Any]) -> Failure | None:
    return None if message["failure"] is None else Failure(**message["failure"])


def reported(report: Report) -> dict[str, Any]:
    """A report as a message."""
    metrics = {name: _text(value) for name, value in report.metrics.items()}
    return {"kind": REPORTED, "step": report.step, "metrics": metrics, "seconds": report.seconds}


def report_of(message: Mapping[str, Any]) -> Report:
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
