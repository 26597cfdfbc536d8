"""Files that are complete or not there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from nas_core.errors import MachineError


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush to the disk, rename: the file is complete or not there.

    Raises MachineError when the disk is full or may not be written to.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with _writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)


def rename(written: Path, path: Path) -> None:
    """Give a file that was flushed its name, in the same folder. Raises MachineError as `write_atomically`."""
    with _writing(path, written):
        _replace(written, path)


@contextlib.contextmanager
def _writing(path: Path, temporary: Path) -> Iterator[None]:
    """What goes wrong in here is the disk's, and leaves no temporary file."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"disk full: cannot write '{path}'; free some space and resume") from error
        raise MachineError(f"cannot write '{path}': {error.strerror or error}") from error


def _replace(temporary: Path, path: Path) -> None:
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    if os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
