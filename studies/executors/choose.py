"""Where the work of a study is done: the executor that was asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.errors import UsageError
from nas_core.job import Job, Work
from studies.executors import Executor
from studies.executors.pool import Pool
from studies.executors.where import AUTO, EXECUTORS, Where
from studies.executors.worker import Candidates, JobWork, Remote
from studies.records import Study
from studies.setup.assemble import StudyObjects
from studies.store.store import Store

POOLS = ("processes", "ray")
"""Those whose workers do whatever they are told, not evaluations alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Work as other processes are told to do it: on files in `folder`. `device` and `threads` are what the work names;
    `trial_seconds` are what one evaluation may take; `ahead`: how many may wait for whoever is free first."""

    remote: Remote
    folder: Path
    device: str | None = None
    threads: int | None = None
    trial_seconds: float | None = None
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(Elsewhere):
    """What an executor is made for: work of a study as it is here, too. `apart`: not in this process, unless the user
    says so."""

    store: Store
    study: Study
    work: Work
    apart: bool = False


def candidates(store: Store, study: Study, parts: StudyObjects, *, apart: bool = False) -> Assignment:
    """The evaluation of a study's candidates. On CUDA it is always apart; where that is wanted every training is."""
    spec, facts = study.spec, study.spec.evaluator.facts
    return Assignment(
        store=store,
        study=study,
        work=parts.evaluator,
        remote=Candidates(spec),
        folder=store.folder(study),
        device=facts.device,
        threads=facts.threads,
        trial_seconds=parts.trial_seconds,
        ahead=int(spec.ordering == "strict"),  # in the order of ends what is asked next hears of all that have ended
        apart=not parts.evaluator.in_process or (apart and not facts.looks_up),
    )


def job(store: Store, study: Study, work: Job) -> Assignment:
    """Repeats of a job."""
    return Assignment(
        store=store,
        study=study,
        work=work,
        remote=JobWork(study.spec, work.kind, work.settings, store.url, store.files),
        folder=store.folder(study),
        device=work.settings["device"],
        threads=work.settings.get("threads"),
    )


def executor(assignment: Assignment, where: Where) -> Executor:
    """Who does it. Raises UsageError and MachineError."""
    name = where.name
    if name == AUTO:
        name = "processes" if where.workers > 1 or assignment.apart else "inline"
    made: Executor = _maker(name)(assignment, where)
    return made


def pool_name(where: Where) -> str:
    """Of the executor for the searches of a bench. Raises UsageError for one that does what a single study wants."""
    name = "processes" if where.name == AUTO else where.name
    if name not in POOLS:
        raise UsageError(
            f"--executor {name}: that works for one study, and a bench searches in many; use {' or '.join(POOLS)}"
        )
    return name


def pool(work: Elsewhere, where: Where) -> Pool[Any]:
    """Workers for the searches of a bench. Raises UsageError as `pool_name`, MachineError."""
    made: Pool[Any] = _maker(pool_name(where))(work, where)
    return made


def _maker(name: str) -> Any:
    module, _, function = EXECUTORS[name].partition(":")
    return getattr(importlib.import_module(module), function)
