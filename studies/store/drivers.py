"""Who drives a study: its lock is a file beside the database, and on a server one of the session's, which other
machines see. The system, or the server, releases both when the process dies."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from nas_core.errors import MachineError, Notice
from studies.store import locks
from studies.store.schema import check_unchanged
from studies.store.urls import writing

PATIENCE = 120.0  # seconds for a server that has gone away
PAUSE = 1.0  # seconds between two tries

_TAKEN = sa.text(
    "SELECT s.name FROM studies s JOIN pg_locks l ON l.objid::bigint = s.id "
    "WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objsubid = 1 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def driven(connection: Connection, folder: Path) -> str | None:
    """A study that a process drives, in a database of any schema; `folder`: where the locks of studies are."""
    for (name,) in connection.execute(sa.text("SELECT name FROM studies ORDER BY id")):
        if locks.is_held(folder / name / locks.NAME):
            return str(name)
    if connection.dialect.name != "postgresql":
        return None
    found = connection.execute(_TAKEN).scalar()
    return None if found is None else str(found)


def take(connection: Connection, study: int) -> bool:
    """Lock a study on a server, in a transaction or between two; whether no other session has."""
    return bool(connection.execute(sa.text("SELECT pg_try_advisory_lock(:id)"), {"id": study}).scalar())


def outlast(connection: Connection, studies: Iterable[int], place: str) -> None:
    """Wait until a server that went away answers again, and take the locks that these studies had there.

    Raises MachineError where it does not come back in time, where another process has a study by then, or where the
    database has another schema.
    """
    text = f"{place} does not answer; waiting for it, {PATIENCE:g} s at most"
    warnings.warn(text, Notice, stacklevel=2)
    limit, left = time.monotonic() + PATIENCE, set(studies)
    while True:
        try:
            with writing(connection):  # which connects again
                check_unchanged(connection)
                left -= {study for study in left if take(connection, study)}
        except DBAPIError as error:
            left = set(studies)
            if time.monotonic() > limit:
                raise MachineError(
                    f"{place} has not answered for {PATIENCE:g} s ({_line(error)}); what was committed is kept"
                ) from None
        else:
            if not left:
                return
            if time.monotonic() > limit:  # the server may take a while to notice that the first session is gone
                raise MachineError(
                    f"{place} went away for a while, and another process runs the study now; what was committed is kept"
                )
        time.sleep(PAUSE)


def _line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())[:200]
