"""Where a database is: URLs, files, SQLite's settings, and what its errors mean to a person."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nas_core.errors import MachineError, NasError, NotFoundError, UsageError


def parse(url: str) -> URL:
    """Raises UsageError for a URL of another kind of database, or of one that would be gone afterwards."""
    hint = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise UsageError(f"'{url}' is not a database URL; {hint}") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UsageError(f"'{backend}' databases are not supported; {hint}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError(f"the database '{url}' has no file, so nothing would be kept; {hint}")
    return parsed


def default_files(url: URL) -> Path:
    """Beside a SQLite file `nas.db`: the folder `nas-files`; elsewhere `nas-files` in the working folder."""
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        return path.with_name(f"{path.stem}-files")
    return Path("nas-files")


def only_reading(action: int, *_: object) -> int:
    """SQLite's authorizer for a person's query: no writing, no pragmas, no other files."""
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def check_sqlite_path(url: URL, create: bool) -> None:
    path = Path(url.database or "")
    if not path.exists() and not create:
        raise NotFoundError(f"there is no database '{path}'; start with 'nas search', or name one by --db")
    folder = path.parent if str(path.parent) else Path()
    if not folder.is_dir():
        raise MachineError(f"the folder '{folder}' of database '{path}' does not exist; make it or choose another --db")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise MachineError(f"no permission to write '{path}'; choose another place by --db sqlite:///FILE")


def set_pragmas(engine: sa.Engine, durable: bool) -> None:
    def on_connect(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 60000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # A checkpoint waits for the disk: every 32 MiB instead of every 4 nearly doubles the trials per second.
        cursor.execute("PRAGMA wal_autocheckpoint = 8000")
        cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        cursor.close()

    sa.event.listen(engine, "connect", on_connect)


def explain(error: DBAPIError, place: str) -> NasError:
    text = short(error)
    low = text.lower()
    if "full" in low or "disk i/o" in low:
        return MachineError(f"the disk is full: {place}: {text}; what was committed is safe")
    if "readonly" in low or "read-only" in low:
        return MachineError(f"no permission to write {place}: {text}")
    if "not a database" in low or "malformed" in low:
        return MachineError(f"{place} is not a study database, or is damaged: {text}")
    if "unable to open" in low or "connect" in low:
        return MachineError(f"cannot reach the database {place}: {text}")
    return MachineError(f"{place}: {text}")


def short(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
