"""Take a study out of the store, with everything that belongs to it alone."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nas_core.records import Bench
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store


def remove_study(store: Store, study: Study) -> None:
    """Commit that a study is gone: its runs, their metrics and files' records, its supernet and snapshots, and the
    architectures that nothing else knows. Scores stay, as other studies use them."""
    store.write(lambda connection: _remove(connection, study.id))


def remove_bench(store: Store, bench: Bench) -> None:
    """The same of a bench and all its children, at once."""
    children = [study.id for study in store.studies_of(bench)]

    def work(connection: Connection) -> None:
        for child in children:
            _remove(connection, child)
        connection.execute(t.benches.delete().where(t.benches.c.id == bench.id))

    store.write(work)


def _remove(connection: Connection, study: int) -> None:
    runs = sa.select(t.runs.c.id).where(t.runs.c.study == study)
    own = sa.select(t.runs.c.architecture).where(t.runs.c.study == study)
    derived = sa.select(t.epochs.c.architecture).where(t.epochs.c.run.in_(runs))
    known = {key for key in connection.execute(sa.union(own, derived)).scalars() if key is not None}
    known |= _results(connection, t.runs.c.study == study)
    for table in (t.metrics, t.artifacts, t.epochs):
        connection.execute(table.delete().where(table.c.run.in_(runs)))
    attempts = sa.select(t.attempts.c.id).where(t.attempts.c.study == study)
    connection.execute(t.messages.delete().where(t.messages.c.attempt.in_(attempts)))
    for table in (t.runs, t.snapshots, t.attempts, t.queues):
        connection.execute(table.delete().where(table.c.study == study))
    connection.execute(t.studies.delete().where(t.studies.c.id == study))
    keys = sorted(known - _results(connection, sa.true()))
    used = [sa.exists().where(table.c.architecture == t.architectures.c.key) for table in (t.runs, t.epochs, t.scores)]
    for start in range(0, len(keys), 500):
        some = t.architectures.c.key.in_(keys[start : start + 500])
        connection.execute(t.architectures.delete().where(some, ~sa.or_(*used)))


def _results(connection: Connection, where: sa.ColumnElement[bool]) -> set[str]:
    """Keys of the architectures that supernets have derived, which are kept as JSON."""
    found = connection.execute(sa.select(t.runs.c.derived).where(where, t.runs.c.derived.isnot(None)))
    return {key for text in found.scalars() for key in json.loads(text)}
