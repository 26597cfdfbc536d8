"""A program that is spoken to in lines, on its standard input and output."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from threading import Thread
from typing import IO

from nas_core.errors import MachineError, NasError

LONGEST = 1_000_000  # bytes of one answer
CHUNK = 65_536
PATIENCE = 2.0  # seconds in which a program may end by itself


class Process:
    """A running program. What it writes to standard error appears on this program's.

    It has a process group of its own, so that Ctrl-C, which stops a search in good order, does not reach it; it ends
    when its standard input does, or a moment later.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Raises MachineError where it cannot be started."""
        self._name = " ".join(arguments)
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                arguments, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise MachineError(f"program '{self._name}' cannot be started: {error.strerror}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._last: deque[str] = deque(maxlen=1)  # line of its standard error that is not empty
        self._showing = Thread(target=_show, args=(self._process.stderr, self._last), daemon=True)
        self._showing.start()
        self.close = weakref.finalize(self, _end, self._process)

    def ask(self, lines: Sequence[str], seconds: float) -> str:
        """Write lines, and return the one line that is answered. After an error the program can only be closed.

        Raises NasError for an answer that comes too late, before all was read, in several lines or in one that is too
        long, and where the program ends without one.
        """
        left, answer = memoryview("".join(f"{line}\n" for line in lines).encode()), b""
        deadline = time.monotonic() + seconds
        while b"\n" not in answer:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise NasError(f"program '{self._name}' has not answered within {seconds:g} s")
            readable, writable, _ = select.select([self._stdout], [self._stdin] if left else [], [], remaining)
            if readable:
                chunk = os.read(self._stdout, CHUNK)
                answer += chunk
                if not chunk:
                    raise self._ended()
                if left:
                    raise NasError(f"program '{self._name}' has written {_quoted(answer)} before it was asked")
                if len(answer) > LONGEST:
                    raise NasError(f"program '{self._name}' answers with more than {LONGEST:,} bytes")
            elif writable:
                try:
                    left = left[os.write(self._stdin, left[:CHUNK]) :]
                except BrokenPipeError:
                    raise self._ended() from None
        line, _, more = answer.partition(b"\n")
        if more:
            raise NasError(
                f"program '{self._name}' has written {_quoted(more)} after its answer; one line is one answer"
            )
        return line.decode(errors="replace")

    def _ended(self) -> NasError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._showing.join(PATIENCE)
        code = self._process.returncode
        how = "has closed its output" if code is None else f"has ended with code {code}"
        if code is not None and code < 0:
            how = f"was ended by signal {signal.Signals(-code).name}"
        said = f"\nIts last line on standard error: {self._last[0]}" if self._last else ""
        return NasError(f"program '{self._name}' {how} without an answer{said}")


def _quoted(text: bytes) -> str:
    return repr(text[:80].decode(errors="replace").rstrip("\n"))


def _show(stream: IO[bytes], last: deque[str]) -> None:
    """Hand on what is written to standard error, line by line."""
    for written in stream:
        line = written.decode(errors="replace").rstrip()
        if line:
            last.append(line)
        print(line, file=sys.stderr, flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the program's input, and end it where that does not."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    for end in (None, signal.SIGTERM, signal.SIGKILL):
        if end is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            break
    process.stdout.close()
