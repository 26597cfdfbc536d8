"""stdout is for data. Whatever else prints there while a command runs, in Python or in C, goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from nas_core.errors import MachineError


class Closed(Exception):
    """Nobody reads stdout any more (`nas trials STUDY | head`): there is nothing left to do."""


def data() -> TextIO:
    """The stream that data belongs to: stdout, as it was outside of `diverted`."""
    stream: TextIO = getattr(sys.stdout, "data", sys.stdout)
    return stream


def write(text: str) -> None:
    """Write data, and flush, so that a closed pipe shows.

    Raises Closed for a pipe that nobody reads, MachineError for another stdout that takes nothing.
    """
    stream = data()
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise Closed from None
    except OSError as error:
        raise MachineError(f"stdout cannot be written: {error.strerror}") from None


@contextmanager
def diverted() -> Iterator[None]:
    """While entered, `print`, and what writes to file descriptor 1, end on stderr; `write` writes to stdout."""
    stdout, stream = sys.stdout, data()
    saved = _divert_descriptor(stdout)
    if saved is not None:
        stream = open(saved, "w", encoding=stdout.encoding, errors=stdout.errors)  # noqa: SIM115
    sys.stdout = _Diverted(stream)
    try:
        yield
    finally:
        sys.stdout = stdout
        if saved is not None:
            os.dup2(saved, 1)
            with suppress(OSError):  # what could not be written has been said
                stream.close()


def _divert_descriptor(stdout: TextIO) -> int | None:
    """Make descriptor 1 another name of stderr; a new name of what it was, or None where stdout is something else."""
    try:
        if stdout.fileno() != 1:
            return None
        stdout.flush()
    except (OSError, ValueError):
        return None
    saved = os.dup(1)
    os.dup2(2, 1)
    return saved


class _Diverted:
    """In the place of stdout: what is written goes to stderr."""

    def __init__(self, stream: TextIO) -> None:
        self.data = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class Forgiving:
    """In the place of stderr: progress that cannot be written, because the terminal is gone, ends no search."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """For a process: descriptors 0 to 2 that were closed lead nowhere, so that no database gets their number; at the
    end nothing is left for Python to flush, which would complain."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = Forgiving(sys.stderr or open(2, "w", closefd=False))  # noqa: SIM115
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
