"""Where the work of a study is done: the executor that was asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from nas_core.job import Job, Work
from studies.executors import Executor
from studies.executors.where import AUTO, EXECUTORS, Where
from studies.executors.worker import Candidates, JobWork, Remote
from studies.records import Study
from studies.setup.assemble import StudyObjects
from studies.store.store import Store


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an executor is made for: work of a study as it is here, and as another process is told to do it. `device`
    and `threads` are what the work names; `trial_seconds` are what one evaluation may take; `apart`: not in this
    process, unless the user says so."""

    store: Store
    study: Study
    work: Work
    remote: Remote
    device: str | None
    threads: int | None = None
    trial_seconds: float | None = None
    apart: bool = False


def candidates(store: Store, study: Study, parts: StudyObjects, *, apart: bool = False) -> Assignment:
    """The evaluation of a study's candidates. On CUDA it is always apart; where that is wanted every training is."""
    spec, facts = study.spec, study.spec.evaluator.facts
    apart = not parts.evaluator.in_process or (apart and not facts.looks_up)
    place = facts.device, facts.threads
    return Assignment(store, study, parts.evaluator, Candidates(spec), *place, parts.trial_seconds, apart)


def job(store: Store, study: Study, work: Job) -> Assignment:
    """Repeats of a job."""
    remote = JobWork(study.spec, work.kind, work.settings, store.url, store.files)
    return Assignment(store, study, work, remote, work.settings["device"], work.settings.get("threads"))


def executor(assignment: Assignment, where: Where) -> Executor:
    """Who does it. Raises UsageError and MachineError."""
    name = where.name
    if name == AUTO:
        name = "processes" if where.workers > 1 or assignment.apart else "inline"
    module, _, function = EXECUTORS[name].partition(":")
    made: Executor = getattr(importlib.import_module(module), function)(assignment, where)
    return made
