"""SQLite files: opened to be written or only read, and what they lie on. Without SQLAlchemy, whose import costs more
than the query of `nas ls`."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

WAIT = 60.0  # seconds for another process that writes
BRIEFLY = 1.0  # seconds for one that has been waited for in vain
MOUNTS = Path("/proc/self/mountinfo")
BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")

# Between machines neither the locks nor the shared memory of SQLite can be relied on there.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|afs|9p|ceph|lustre|gpfs|beegfs|glusterfs|fuse\.(sshfs|glusterfs|ceph\S*|s3fs)"
)


class _Copy(sqlite3.Connection):
    """Holds the folder of a temporary copy, which goes with it."""

    folder: tempfile.TemporaryDirectory[str]

    def close(self) -> None:
        super().close()
        self.folder.cleanup()


def reading(path: Path) -> sqlite3.Connection:
    """A connection that changes no row, on a read-only medium too.

    Where the place can be written, what a killed process has left in the journal is taken up. Where it cannot, the
    file counts as it is; a copy is read if a journal lies beside it. Raises sqlite3.Error.
    """
    uri = path.absolute().as_uri()
    if writable(path):
        return _open(f"{uri}?mode=rw")
    connection = _open(f"{uri}?mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorname.startswith(BUSY):
            raise
        # The journal needs shared memory or a rollback here, for which there is no place.
        journals = [Path(f"{path}{ending}") for ending in ("-wal", "-journal")]
        left = [journal for journal in journals if journal.is_file() and journal.stat().st_size]
        return _copied(path, left) if left else _open(f"{uri}?immutable=1")
    return connection


def writable(path: Path) -> bool:
    """Whether a database file, and what SQLite keeps beside it, can be written."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def only_reading(action: int, *_: object) -> int:
    """SQLite's authorizer for a person's query: no writing, no pragmas, no other files."""
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def prepare_writing(connection: sqlite3.Connection, durable: bool) -> str:
    """Set what a connection that writes needs; the journal mode that the file has then: `wal`, where it can be."""
    connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000:.0f}")
    mode = _write_ahead(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    # A checkpoint waits for the disk: every 32 MiB instead of every 4 nearly doubles the trials per second.
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    # Without the write-ahead log a power failure could otherwise damage the file, not only lose the last commits.
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable or mode != 'wal' else 'NORMAL'}")
    return mode


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that a file lies on; None on others, and where that cannot be told."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    found, longest = "", 0
    place = path.absolute().resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].replace(r"\040", " "))
        if len(mount.parts) >= longest and place.is_relative_to(mount):  # of two at one place the later one is seen
            found, longest = after.split()[0], len(mount.parts)
    return found if _NETWORK.fullmatch(found) else None


def _open(uri: str, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=WAIT, check_same_thread=False, factory=kind)


def _copied(path: Path, journals: list[Path]) -> sqlite3.Connection:
    folder = tempfile.TemporaryDirectory(prefix="nas-")
    for file in (path, *journals):
        shutil.copyfile(file, Path(folder.name) / file.name)
    connection = _open(f"{(Path(folder.name) / path.name).as_uri()}?mode=rw", _Copy)
    assert isinstance(connection, _Copy)
    connection.folder = folder
    return connection


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Turn the write-ahead log on. Two processes that do so at once stand in each other's way, whatever they wait."""
    limit = time.monotonic() + WAIT
    while True:
        try:
            mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
            return mode if mode == "wal" else str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(BUSY) or time.monotonic() > limit:
                raise
            time.sleep(0.02)
