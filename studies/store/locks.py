"""Locks on files: held by an open file, released by the system when the process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "lock"


def take(path: Path) -> int | None:
    """Lock a file, which is made; the handle that holds it, or None where another process does. Raises OSError."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_at(handle, path):
            return handle
        os.close(handle)  # removed between opening and locking: another process would lock a new one


def is_held(path: Path) -> bool:
    """Whether a process has locked a file, which need not be there. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
