"""What commands that do work on a network have in common: they drive it, and can be interrupted."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_cli.line import Progress

if TYPE_CHECKING:
    from nas_core.job import Job
    from nas_core.records import Run
    from studies.analysis.costs import Limit
    from studies.executors.where import Where
    from studies.jobs.train import Training
    from studies.records import Study
    from studies.store.store import Store


def drive(
    store: Store, study: Study, trial: Run, job: Job, seeds: int, where: Where, *, parent: Run | None = None
) -> tuple[list[Run], int]:
    """The complete runs of a job with so many seeds; those of the first ones where it was interrupted, and the exit
    code then.

    Raises NasError where one has failed.
    """
    from nas_core.errors import NasError
    from nas_core.strategy import State
    from studies.address import address_of
    from studies.jobs.run import NAMES

    done, code = driven(store, study, trial, job, seeds, where, parent=parent)
    failed = next((run for run in done if run.state != State.COMPLETE), None)
    if failed is not None:
        address = address_of(study, trial, failed)
        raise NasError(f"{NAMES[job.kind]} {address} failed: {failed.verdict.reason} (nas show {address})")
    return done, code


def driven(
    store: Store, study: Study, trial: Run, job: Job, seeds: int, where: Where, *, parent: Run | None = None
) -> tuple[list[Run], int]:
    """The same, with those that have failed among them."""
    from nas_cli.signals import Stopper
    from studies.address import address_of
    from studies.environment import environment
    from studies.executors.choose import executor
    from studies.executors.choose import job as assignment
    from studies.jobs.run import Driver

    facts = store.environment(environment(study.spec))
    with store.lock(study), Stopper() as stopper, Progress(address_of(study, trial)) as progress:
        driver = Driver(
            *(store, study, trial, job, executor(assignment(store, study, job), where)),
            parent=parent,
            listener=progress,
            stopping=stopper.stopping,
            environment=facts,
        )
        done = driver.run(range(seeds))
    return done, stopper.code


def interrupted(address: str, again: Sequence[str], places: str, done: Sequence[Run], as_json: bool) -> None:
    """Say how to go on."""
    from nas_cli.render import emit

    if as_json:
        emit(json.dumps({"trial": address, "ending": "interrupted", "seeds": len(done)}))
    print(f"nas: interrupted; go on with: {shlex.join(again)}{places}", file=sys.stderr)


def said(study: Study, trial: Run, plan: Training, size: str | None) -> list[Limit]:
    """What there is to know of a training before it begins; the study's limits for its network."""
    from studies.analysis.costs import remarks

    taken = plan.evaluator.taken(trial.arch)
    if taken is not None:
        print(f"weights: {taken}", file=sys.stderr)
    limits, lines = remarks(study, trial, plan.evaluator, chosen=size is not None)
    for line in lines:
        print(f"nas: {line}", file=sys.stderr)
    return limits


def spread(measured: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of every metric."""
    values: dict[str, list[float]] = {}
    for metrics in measured:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {
        name: {"mean": statistics.fmean(column), "std": statistics.stdev(column) if len(column) > 1 else None}
        for name, column in values.items()
    }
