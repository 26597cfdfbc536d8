"""What the searches of a database keep for one another, in files: a generator that was trained on a space.

One file per key: the SHA-256 of the rest, then the JSON and the arrays that `studies.store.snapshots` packs. A damaged
file counts as absent: what is kept here can be made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.errors import MachineError, Notice
from studies.store import snapshots

if TYPE_CHECKING:
    from studies.store.store import Store

# Words of stored files, which stay as they are.
FOLDER = "_kept"  # beside the folders of studies, whose names begin with a letter or a digit
SUFFIX = ".kept"
DIGEST = 32  # bytes of a SHA-256


class FileCache(MutableMapping[str, Mapping[str, Any]]):
    """Plain data and arrays (as in `nas_core.strategy.Snapshots`) by text, in the files of a folder.

    A value is there whole or not at all. Of two processes that write a key the last one wins. Raises MachineError
    where the folder cannot be written, TypeError for values of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside: set[str] = set()  # keys whose lock this object holds

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Raises KeyError."""
        found = _read(self._path(key))
        if found is None or found["key"] != key:
            raise KeyError(key)
        value: dict[str, Any] = found["value"]
        return value

    def __setitem__(self, key: str, value: Mapping[str, Any]) -> None:
        from nas_core.files import write_atomically

        text, arrays = snapshots.pack({"key": key, "value": value})
        body = text.encode() + b"\n" + arrays  # JSON of one line
        with self.alone(key):  # two writers share the temporary name
            write_atomically(self._path(key), hashlib.sha256(body).digest() + body)

    def __delitem__(self, key: str) -> None:
        """Raises KeyError."""
        if key not in self:
            raise KeyError(key)
        self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            found = _read(path)
            if found is not None:
                yield found["key"]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold the key: others, here or in another process, wait in their `alone`. May be entered again inside;
        released by the system when the process dies."""
        if key in self._inside:
            yield
            return
        path = self._path(key).with_suffix(".lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise MachineError(
                f"cannot write in '{self._folder}' ({error.strerror}); choose another folder by --files"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._inside.add(key)
            yield
        finally:
            self._inside.discard(key)
            os.close(handle)

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{SUFFIX}"


def cached_in(store: Store) -> FileCache:
    """What all studies of a database keep."""
    return FileCache(store.files / FOLDER)


def _read(path: Path) -> dict[str, Any] | None:
    """The key and value of a file; None where it is absent, or not what was written, which is said (`Notice`)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = content[DIGEST:]
    if hashlib.sha256(body).digest() != content[:DIGEST]:
        warnings.warn(Notice(f"'{path}' is damaged; what it held is made again"), stacklevel=2)
        return None
    text, _, arrays = body.partition(b"\n")
    return snapshots.unpack(text.decode(), arrays)
