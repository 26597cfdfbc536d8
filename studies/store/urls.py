"""Where a database is: URLs, files, SQLite's settings, and what its errors mean to a person."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from nas_core.errors import MachineError, NasError, NotFoundError, UsageError
from studies.store import sqlite

SMALLEST = 2**16  # bytes: what SQLite enlarges a file by, at most


def parse(url: str) -> URL:
    """Raises UsageError for a URL of another kind of database, or of one that would be gone afterwards."""
    hint = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise UsageError(f"'{_masked(url)}' is not a database URL; {hint}") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UsageError(f"'{backend}' databases are not supported; {hint}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError(f"the database '{url}' has no file, so nothing would be kept; {hint}")
    return parsed


def _masked(text: str) -> str:
    """What may be a URL, without what may be a password in it."""
    return re.sub(r"(?i)(pass\w*=)[^&]*", r"\1***", re.sub(r":(?!//).*@", ":***@", text))


def shown(url: URL) -> str:
    """A URL for messages and commands, without any password."""
    return url.set(query=_open(url)).render_as_string(hide_password=True)


def shareable(url: URL) -> str:
    """A URL for files that are passed on: without a password, and without the folder of an absolute path."""
    database = url.database
    if url.get_backend_name() == "sqlite" and database and Path(database).is_absolute():
        database = Path(database).name
    return URL.create(url.drivername, url.username, None, url.host, url.port, database, _open(url)).render_as_string()


def _open(url: URL) -> dict[str, Any]:
    """The parameters of a URL that are no passwords."""
    return {key: value for key, value in url.query.items() if "pass" not in key.lower()}


def default_files(url: URL) -> Path:
    """Beside a SQLite file `nas.db`: the folder `nas-files`; elsewhere `nas-files` in the working folder."""
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        return path.with_name(f"{path.stem}-files")
    return Path("nas-files")


def check_file(path: Path, *, create: bool, reading: bool) -> None:
    """Raises NotFoundError for a file that is not there, MachineError for one that cannot be opened."""
    if not path.exists() and not create:
        raise NotFoundError(f"there is no database '{path}'; start with 'nas search', or name one by --db")
    folder = path.parent
    if not folder.is_dir():
        raise MachineError(f"the folder '{folder}' of database '{path}' does not exist; make it or choose another --db")
    if reading:
        if not os.access(path, os.R_OK):
            raise MachineError(f"no permission to read '{path}'")
    elif not os.access(path if path.exists() else folder, os.W_OK):
        raise MachineError(f"no permission to write '{path}'; choose another place by --db sqlite:///FILE")


def connect(url: URL, *, durable: bool, reading: bool) -> tuple[Connection, list[str]]:
    """A connection, and what threatens the data at that place.

    Raises DBAPIError, SQLAlchemyError or ModuleNotFoundError.
    """
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url).connect(), []
    path = Path(url.database or "")
    if reading:
        connection = sa.create_engine(url, creator=lambda: sqlite.reading(path)).connect()
        with connection.begin():
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return connection, list(risks(path, mode)) if sqlite.writable(path) else []
    engine = sa.create_engine(url)
    modes: list[str] = []
    sa.event.listen(engine, "connect", lambda found, _: modes.append(sqlite.prepare_writing(found, durable)))
    connection = engine.connect()
    return connection, list(risks(path, modes[-1]))


def risks(path: Path, journal_mode: str) -> Iterator[str]:
    """What threatens a SQLite file that is written."""
    kind = sqlite.network_file_system(path)
    if kind is not None:
        yield (
            f"'{path}' is on a network file system ({kind}), where SQLite's locks cannot be relied on: "
            "use it from one machine only, or put it on a local disk, or use PostgreSQL"
        )
    if journal_mode != "wal":
        yield (
            f"'{path}' has no write-ahead log here (journal mode '{journal_mode}'): "
            "commits are slower, and readers wait for writers; put it on a local disk, or use PostgreSQL"
        )


@contextmanager
def writing(connection: Connection) -> Iterator[Connection]:
    """A transaction that may write from its start: what it has read cannot be changed by others before it ends."""
    with connection.begin():
        if connection.dialect.name == "sqlite":
            # The driver begins one for INSERT, UPDATE and DELETE alone, and then only after what was read before.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def forbid_writing(connection: Connection) -> None:
    """Let the connection refuse to write, should anything try."""
    on_server = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    command = "PRAGMA query_only = ON" if connection.dialect.name == "sqlite" else on_server
    with connection.begin():
        connection.exec_driver_sql(command)


def hold(connection: Connection, table: sa.Table) -> None:
    """Keep others from writing to a table until this transaction ends; on SQLite `writing` has done so."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


def explain(error: DBAPIError, place: str, file: Path | None = None) -> NasError:
    """What an error of the database means to a person; `file` is the one that it is in."""
    text = short(error)
    low = text.lower()
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == "58030" or (name.startswith("SQLITE_IOERR") and not _disk_is_full(file)):
        return MachineError(
            f"input/output error: {place}: {text} ({name or state}); the disk or its connection fails, or is full; "
            "what was committed before is kept"
        )
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR") or state == "53100":
        return MachineError(f"the disk is full: {place}: {text}; what was committed is safe")
    if busy(error):
        return MachineError(
            f"{place} has been locked by another process for {sqlite.WAIT:g} seconds: {text}; try again"
        )
    if name.startswith("SQLITE_READONLY") or state == "25006":
        return MachineError(f"no permission to write {place}: {text}")
    if name.startswith("SQLITE_NOTADB"):
        return MachineError(f"{place} is not a study database: {text}")
    if isinstance(error, IntegrityError):
        return MachineError(
            f"{place} refuses what was to be stored: {text}; another process may have written to the study; what was "
            "committed is kept"
        )
    if misses(error) or name.startswith("SQLITE_CORRUPT") or state.startswith("XX"):
        return MachineError(f"{place} is damaged: {text}")
    if "unable to open" in low or "connect" in low:
        return MachineError(f"cannot reach the database {place}: {text}")
    return MachineError(f"{place}: {text}")


def busy(error: DBAPIError) -> bool:
    """Whether another process writes to the same SQLite file."""
    return (getattr(error.orig, "sqlite_errorname", None) or "").startswith(sqlite.BUSY)


def misses(error: DBAPIError) -> bool:
    """Whether a table, a column or a value was not as it was expected: the schema may have changed."""
    missing = re.match(r"no such (table|column)|table \S+ has no column", short(error), re.IGNORECASE)
    return (
        bool(missing)
        or getattr(error.orig, "sqlstate", None) in ("42P01", "42703")
        or isinstance(error, IntegrityError)
    )


def _disk_is_full(file: Path | None) -> bool:
    """SQLite does not say why it could not enlarge a file beside the database."""
    try:
        return file is not None and shutil.disk_usage(file.absolute().parent).free < SMALLEST
    except OSError:
        return False


def short(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
