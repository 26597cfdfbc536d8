"""The queue of a study: attempts that its driver wants done, and what workers on any machine say of them.

A worker has an attempt under a lease by the database's clock, which every sign of it renews. The driver is the only one
who takes an attempt back, by removing its row; ids are never given twice, so that a worker who was thought dead, and
speaks again, is told by its own id that nobody listens any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.records import Study
from studies.store import tables as t
from studies.store import urls
from studies.store.rows import dump
from studies.store.store import Store

T = TypeVar("T")

PAUSE = 10.0  # seconds that a process may take between two statements of a transaction
WAITING, RUNNING, OVER = "waiting", "running", "over"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An evaluation that a driver wants done: `work` says whose (nothing: the study's evaluator), `folder` is that of
    the run, below that of all files, `job` is the rest as plain data."""

    number: int
    folder: str
    job: Mapping[str, Any]
    work: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where an attempt at a run stands, whose files are in `folder`. `begun`: the driver has counted it. `said`: how
    many messages there are. `claimed`: seconds since its worker took it, `silent` since the last sign of that;
    `expired`: the lease is over."""

    id: int
    number: int
    folder: str
    state: str
    halting: bool
    begun: bool
    worker: str | None
    said: int
    claimed: float | None
    silent: float | None
    expired: bool


@dataclass(frozen=True, slots=True)
class Driver:
    """The newest driver of a queue. `silent`: seconds since its last sign; None: it has ended in good order."""

    session: str
    name: str
    version: str
    lease: float
    silent: float | None


class Queue:
    """Verbs on the queue of a study, one transaction each, for its driver and for its workers."""

    def __init__(self, store: Store, study: Study) -> None:
        self._store, self._study = store, study.id
        on_server = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
        on_file = "((julianday('now') - 2440587.5) * 86400.0)"
        self._on_server = urls.parse(store.url).get_backend_name() == "postgresql"
        self._now: Any = sa.literal_column(on_server if self._on_server else on_file, sa.Float)

    # -- the driver ---------------------------------------------------------------------------------------

    def open(self, session: str, driver: str, version: str, lease: float) -> None:
        """Begin a driver's session. What the session before has left can be wanted again, what is older goes."""
        q, a = t.queues.c, t.attempts.c
        values = {"session": session, "driver": driver, "version": version, "lease": lease, "seen": self._now}

        def work(connection: Connection) -> None:
            before = connection.execute(sa.select(q.session).where(q.study == self._study)).scalar()
            if before is None:
                connection.execute(t.queues.insert().values(study=self._study, **values))
                return
            old = connection.execute(sa.select(a.id).where(a.study == self._study, a.session != before))
            _remove(connection, old.scalars().all())
            connection.execute(t.queues.update().where(q.study == self._study).values(**values))

        self._write(work)

    def sign(self, session: str) -> None:
        """The driver lives."""
        q = t.queues.c
        mine = sa.and_(q.study == self._study, q.session == session)
        self._write(lambda c: c.execute(t.queues.update().where(mine).values(seen=self._now)))

    def leave(self, session: str) -> None:
        """The driver ends in good order. What an earlier one has left, and this one did not want, goes."""
        q, a = t.queues.c, t.attempts.c
        mine = sa.and_(q.study == self._study, q.session == session)

        def work(connection: Connection) -> None:
            connection.execute(t.queues.update().where(mine).values(seen=None))
            old = connection.execute(sa.select(a.id).where(a.study == self._study, a.session != session))
            _remove(connection, old.scalars().all())

        self._write(work)

    def want(self, session: str, wanted: Wanted) -> Attempt:
        """An attempt at this: the one that an earlier driver wanted and has not heard the end of, or a new one."""
        a = t.attempts.c
        same = {"work": dump(dict(wanted.work)), "job": dump(dict(wanted.job)), "number": wanted.number}
        here = sa.and_(a.study == self._study, a.folder == wanted.folder)
        new = {"state": WAITING, "halting": False, "begun": False, "said": 0}

        def work(connection: Connection) -> int:
            known = connection.execute(sa.select(t.attempts).where(here).order_by(a.id)).all()
            last = known[-1] if known else None
            if last is not None and all(getattr(last, name) == value for name, value in same.items()):
                _remove(connection, [row.id for row in known[:-1]])
                change = t.attempts.update().where(a.id == last.id).values(session=session, halting=False)
                connection.execute(change)
                return int(last.id)
            _remove(connection, [row.id for row in known])
            insert = t.attempts.insert().values(study=self._study, session=session, folder=wanted.folder, **same, **new)
            return int(connection.execute(insert.returning(a.id)).scalar_one())

        found = self._write(work)
        return self._attempts(a.id == found)[0]

    def attempts(self, session: str | None = None) -> list[Attempt]:
        """Those of a session; None: all that a worker has."""
        a = t.attempts.c
        of = a.session == session if session is not None else a.state == RUNNING
        return self._attempts(sa.and_(a.study == self._study, of))

    def messages(self, attempt: int, heard: int) -> list[dict[str, Any]]:
        """What was said of an attempt after the first `heard` messages."""
        m = t.messages.c
        found = self._store.read(sa.select(m.body).where(m.attempt == attempt, m.number > heard).order_by(m.number))
        return [json.loads(row.body) for row in found]

    def count(self, attempt: int) -> None:
        """Commit that the driver has counted it."""
        change = t.attempts.update().where(t.attempts.c.id == attempt).values(begun=True)
        self._write(lambda c: c.execute(change))

    def halt(self, attempt: int) -> None:
        """Let its worker stop at the next checkpoint, and nobody begin it."""
        change = t.attempts.update().where(t.attempts.c.id == attempt).values(halting=True)
        self._write(lambda c: c.execute(change))

    def remove(self, attempt: int) -> None:
        """Take it back, whoever has it."""
        self._write(lambda c: _remove(c, [attempt]))

    def withdraw(self, attempt: int) -> bool:
        """Take it back where no worker has it; whether that is so."""
        return self._remove_where(attempt, t.attempts.c.state == WAITING)

    def expire(self, attempt: int) -> bool:
        """Take it back where its lease is over; whether that is so."""
        return self._remove_where(attempt, sa.and_(t.attempts.c.state == RUNNING, self._expired()))

    # -- workers ------------------------------------------------------------------------------------------

    def driver(self) -> Driver | None:
        """None: the study never had one that wanted anything of workers."""
        q = t.queues.c
        columns = (q.session, q.driver.label("name"), q.version, q.lease, (self._now - q.seen).label("silent"))
        found = self._store.read(sa.select(*columns).where(q.study == self._study))
        return Driver(**{**found[0]._mapping, "silent": _seconds(found[0].silent)}) if found else None

    def claim(self, worker: str) -> tuple[int, Wanted] | None:
        """The first attempt that waits, which is this worker's from here on: its id, and what is wanted; None: nothing
        waits."""
        a, q = t.attempts.c, t.queues.c
        session = sa.select(q.session).where(q.study == self._study).scalar_subquery()
        free = sa.and_(a.study == self._study, a.state == WAITING, a.session == session, a.halting == sa.false())
        columns = (a.id, a.number, a.folder, a.job, a.work)
        first = sa.select(*columns).where(free).order_by(a.number, a.id).limit(1).with_for_update(skip_locked=True)
        mine = {"state": RUNNING, "worker": worker, "claimed": self._now, "until": self._until()}

        def work(connection: Connection) -> Any:
            found = connection.execute(first).first()
            if found is not None:
                connection.execute(t.attempts.update().where(a.id == found.id).values(**mine))
            return found

        if not self._store.read(sa.select(a.id).where(free).limit(1)):  # who only looks locks nobody out
            return None
        row = self._write(work)
        if row is None:
            return None
        return row.id, Wanted(row.number, row.folder, json.loads(row.job), json.loads(row.work))

    def renew(self, attempt: int, worker: str) -> bool | None:
        """A sign of life; whether it is to stop, None: the attempt is not this worker's any more."""
        return self._signed(attempt, worker, {})

    def say(self, attempt: int, worker: str, body: Mapping[str, Any], *, last: bool = False) -> bool | None:
        """Commit a message; answers as `renew`, and None stores nothing. The `last` one may be said again, by who does
        not know whether it was heard."""
        a, text = t.attempts.c, dump(dict(body))

        def add(connection: Connection, said: int) -> None:
            connection.execute(t.messages.insert(), {"attempt": attempt, "number": said, "body": text})

        if not last:
            return self._signed(attempt, worker, {"said": a.said + 1}, add)
        found = self._signed(attempt, worker, {"said": a.said + 1, "state": OVER, "until": None}, add)
        before = sa.select(a.halting).where(a.id == attempt, a.worker == worker, a.state == OVER)
        heard = self._store.read(before) if found is None else ()
        return bool(heard[0].halting) if heard else found

    def is_wanted(self, folder: str) -> bool:
        """Whether there is an attempt at the run of this folder."""
        a = t.attempts.c
        return bool(self._store.read(sa.select(a.id).where(a.study == self._study, a.folder == folder)))

    def give_back(self, attempt: int, worker: str) -> bool | None:
        """Let another worker have it; answers as `renew`."""
        values = {"state": WAITING, "worker": None, "claimed": None, "until": None}
        return self._signed(attempt, worker, values)

    # -- both ---------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[Connection], T]) -> T:
        """In a transaction. Of a process that is stopped in it the server closes the connection, and with it the locks
        that others wait for; in a file they have to."""

        def briefly(connection: Connection) -> T:
            if self._on_server:
                connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {PAUSE * 1000:.0f}")
            return work(connection)

        return self._store.write(briefly)

    def _signed(
        self,
        attempt: int,
        worker: str,
        values: Mapping[str, Any],
        then: Callable[[Connection, int], None] = lambda connection, said: None,
    ) -> bool | None:
        a = t.attempts.c
        mine = sa.and_(a.id == attempt, a.worker == worker, a.state == RUNNING)
        change = t.attempts.update().where(mine).values(**{"until": self._until(), **values})

        def work(connection: Connection) -> bool | None:
            found = connection.execute(change.returning(a.said, a.halting)).first()
            if found is None:
                return None
            then(connection, found.said)
            return bool(found.halting)

        return self._write(work)

    def _until(self) -> Any:
        """The end of a lease that begins now."""
        q = t.queues.c
        return self._now + sa.select(q.lease).where(q.study == self._study).scalar_subquery()

    def _expired(self) -> Any:
        """Whether a lease is over. One that ends too late is of before the clock was set back, without a sign since."""
        until = t.attempts.c.until
        return sa.or_(until < self._now, until - self._until() > self._until() - self._now)

    def _attempts(self, where: Any) -> list[Attempt]:
        a, q = t.attempts.c, t.queues.c
        columns = (
            *(a.id, a.number, a.folder, a.state, a.halting, a.begun, a.worker, a.said),
            (self._now - a.claimed).label("claimed"),
            (self._now - a.until + q.lease).label("silent"),
            sa.func.coalesce(self._expired(), sa.false()).label("expired"),
        )
        found = self._store.read(sa.select(*columns).join(t.queues, q.study == a.study).where(where).order_by(a.id))
        return [
            Attempt(
                **{
                    **row._mapping,
                    "claimed": _seconds(row.claimed),
                    "silent": _seconds(row.silent),
                    "expired": bool(row.expired),
                }
            )
            for row in found
        ]

    def _remove_where(self, attempt: int, condition: Any) -> bool:
        a = t.attempts.c

        def work(connection: Connection) -> bool:
            # Who holds a lock on it is saying something, or was stopped as it did: nobody waits for that.
            still = sa.select(a.id).where(a.id == attempt, condition).with_for_update(skip_locked=True)
            found = connection.execute(still).scalar() is not None
            if found:
                _remove(connection, [attempt])
            return found

        return self._write(work)


def _seconds(since: float | None) -> float | None:
    """Never negative, whatever the clock says."""
    return None if since is None else max(0.0, since)


def _remove(connection: Connection, ids: Sequence[int]) -> None:
    a = t.attempts.c
    connection.execute(sa.select(a.id).where(a.id.in_(ids)).with_for_update()).all()  # so that nothing more is said
    connection.execute(t.messages.delete().where(t.messages.c.attempt.in_(ids)))
    connection.execute(t.attempts.delete().where(a.id.in_(ids)))
