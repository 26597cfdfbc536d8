"""A folder for files that are not whole yet, beside those that they will be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def aside(folder: Path, stem: str) -> Iterator[Path]:
    """A hidden folder in `folder` that goes with the block; what killed processes have left of theirs goes too.

    Each holds a lock on its folder, which the system releases when it dies. Raises OSError.
    """
    for left in folder.glob(f".{stem}-*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=folder) as name, _locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError where another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
