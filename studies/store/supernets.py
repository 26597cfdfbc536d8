"""The supernets of one-shot studies in the store, and the epochs of their training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nas_core.architecture import Architecture
from nas_core.records import SUPERNET, Artifact, Epoch, SupernetRun, Verdict
from nas_core.strategy import Proposal, State
from studies.records import Study
from studies.store import rows
from studies.store import tables as t
from studies.store.store import Store

WEIGHTS = "weights"


def find(store: Store, study: Study) -> SupernetRun | None:
    """The study's supernet; None before its training has begun, and for a study without one."""
    found = store.read(sa.select(t.runs).where(_of(study)))
    if not found:
        return None
    row = found[0]
    keys = None if row.derived is None else json.loads(row.derived)
    known = {} if not keys else architectures(store, keys)
    files = store.read(sa.select(t.artifacts.c.path, t.artifacts.c.sha256).where(t.artifacts.c.run == row.id))
    weights, sha256 = (store.files / files[0].path, files[0].sha256) if files else (None, None)
    return SupernetRun(
        State(row.state),
        row.reason,
        row.attempt,
        None if keys is None else tuple(known[key] for key in keys),
        weights,
        sha256,
        row.seconds,
        row.tries,
        row.traceback,
    )


def start(store: Store, study: Study, environment: int | None, tries: int = 1) -> None:
    """Commit that the training begins, or goes on; `tries` attempts, with this one, since the last epoch."""
    r = t.runs.c
    again = (
        t.runs.update()
        .where(_of(study))
        .values(
            state=State.RUNNING,
            reason=None,
            traceback=None,
            attempt=r.attempt + 1,
            environment=environment,
            tries=tries,
        )
    )
    if not store.write(lambda c: c.execute(again).rowcount):
        every = Architecture(study.spec.space_name, {})  # no choice is made
        verdict = Verdict(State.RUNNING)
        given: Any = {"kind": SUPERNET, "environment": environment, "tries": tries}
        store.propose(study, 1, Proposal(every), every.key, verdict, **given)


def count_tries(store: Store, study: Study, tries: int) -> None:
    """Commit how many attempts have begun since the last epoch, but those that were stopped in good order."""
    store.write(lambda c: c.execute(t.runs.update().where(_of(study)).values(tries=tries)))


def save_epochs(store: Store, study: Study, epochs: Sequence[Epoch], *, again: bool = False) -> None:
    """Commit epochs; one that is there already is replaced. `again`: this attempt has come to none of them itself."""

    def work(connection: Connection) -> None:
        run = connection.execute(sa.select(t.runs.c.id).where(_of(study))).scalar_one()
        for epoch in epochs:
            _keep(store, connection, [epoch.arch] if epoch.arch else [])
            key = (t.epochs.c.run == run) & (t.epochs.c.epoch == epoch.number)
            connection.execute(t.epochs.delete().where(key))
            connection.execute(
                t.epochs.insert(),
                {
                    "run": run,
                    "epoch": epoch.number,
                    "architecture": epoch.arch.key if epoch.arch else None,
                    "metrics": rows.dump(_finite(epoch.metrics)),
                    "strengths": rows.dump({name: list(weights) for name, weights in epoch.strengths.items()}),
                    "seconds": epoch.seconds,
                },
            )
        if not again:
            connection.execute(t.runs.update().where(_of(study)).values(tries=1))

    store.write(work)


def epochs(store: Store, study: Study) -> list[Epoch]:
    """All epochs of the study's supernet, in order."""
    e, a = t.epochs.c, t.architectures.c
    statement = sa.select(t.epochs, a.json).outerjoin(t.architectures, e.architecture == a.key)
    return [
        Epoch(
            row.epoch,
            None if row.json is None else Architecture.from_json(row.json),
            {name: math.nan if value is None else value for name, value in json.loads(row.metrics).items()},
            {name: tuple(weights) for name, weights in json.loads(row.strengths).items()},
            row.seconds,
        )
        for row in store.read(statement.where(e.run == _id(study)).order_by(e.epoch))
    ]


def epoch_count(store: Store, study: Study) -> int:
    """How many epochs of the study's supernet are finished."""
    e = t.epochs.c
    found: int | None = store.read(sa.select(sa.func.max(e.epoch)).where(e.run == _id(study)))[0][0]
    return found or 0


def finish(store: Store, study: Study, result: Sequence[Architecture], weights: Path, seconds: float) -> None:
    """Commit that the training is complete, with the architectures that it has derived and the file of its weights."""
    row = {
        "state": State.COMPLETE,
        "derived": rows.dump([arch.key for arch in result]),
        "ended": time.time(),
        "seconds": seconds,
        "tries": 0,
    }
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()

    def work(connection: Connection) -> None:
        _keep(store, connection, result)
        run = connection.execute(sa.select(t.runs.c.id).where(_of(study))).scalar_one()
        file = Artifact(run, WEIGHTS, os.path.relpath(weights, store.files), digest, time.time())
        connection.execute(t.artifacts.delete().where(t.artifacts.c.run == run))
        connection.execute(t.artifacts.insert(), asdict(file))
        connection.execute(t.runs.update().where(_of(study)).values(row))

    store.write(work)


def fail(store: Store, study: Study, reason: str, traceback: str | None = None) -> None:
    """Commit that the training cannot go on."""
    row = {"state": State.FAILED, "reason": reason, "traceback": traceback, "ended": time.time(), "tries": 0}
    store.write(lambda c: c.execute(t.runs.update().where(_of(study)).values(row)))


def architectures(store: Store, keys: Sequence[str]) -> dict[str, Architecture]:
    """Stored architectures by their keys."""
    a = t.architectures.c
    found = store.read(sa.select(a.key, a.json).where(a.key.in_(keys)))
    return {row.key: Architecture.from_json(row.json) for row in found}


def _of(study: Study) -> sa.ColumnElement[bool]:
    """The condition of the study's supernet."""
    return sa.and_(t.runs.c.study == study.id, t.is_kind(t.runs.c, SUPERNET))


def _id(study: Study) -> sa.ScalarSelect[Any]:
    return sa.select(t.runs.c.id).where(_of(study)).scalar_subquery()


def _keep(store: Store, connection: Connection, archs: Sequence[Architecture]) -> None:
    a = t.architectures.c
    for arch in archs:
        if not connection.execute(sa.select(a.key).where(a.key == arch.key)).first():
            connection.execute(t.architectures.insert(), {"key": arch.key, "json": arch.to_json()})


def _finite(metrics: Mapping[str, float]) -> dict[str, Any]:
    """JSON has no number that is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
