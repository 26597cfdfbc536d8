"""Commands in processes of their own, which tests wait for, disturb and look at."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tests.zygote import Call, Zygote

NAS = [sys.executable, "-m", "nas_cli"]
ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0  # seconds that a test waits for anything, on a busy machine


class Process(Protocol):
    """What these tests need of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


Run = Callable[[list[str], Path], Process]


def fresh(arguments: list[str], folder: Path) -> Process:
    """A command in an interpreter of its own."""
    return subprocess.Popen(
        [*NAS, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "stderr").open("ab")
    )


class Fork:
    """A command in a fork of `zygote`, which leads a session. `function` runs it, as `nas_cli.app:run` does."""

    def __init__(
        self,
        zygote: Zygote,
        arguments: list[str],
        folder: Path,
        function: str = "nas_cli.app:run",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._zygote, self._code = zygote, None
        call = Call(
            function,
            arguments,
            str(folder),
            str(folder / "stderr"),
            str(folder / "stdout"),
            environment=environment or {},
            path=[str(ROOT)],
        )
        self.pid = zygote.start(call)

    def poll(self) -> int | None:
        return self.wait() if self._code is not None or self._zygote.has_ended() else None

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._code = self._zygote.wait(self.pid, timeout)
        assert self._code is not None, "it had to be killed"
        return self._code

    def send_signal(self, sig: int) -> None:
        if self._code is None:
            os.kill(self.pid, sig)


def finish(run: Run, arguments: list[str], folder: Path) -> None:
    assert ended(run(arguments, folder), folder)[0] == 0, said(folder)


def ended(process: Process, folder: Path) -> tuple[int, str]:
    """The exit code of a command, and what it and those before it in that folder have said on stderr."""
    return process.wait(timeout=600), said(folder)


def said(folder: Path) -> str:
    """What commands have written to stderr in a folder so far."""
    file = folder / "stderr"
    return file.read_text() if file.exists() else ""


def until(condition: Callable[[], bool], process: Process, folder: Path) -> None:
    """Wait for something that a process brings about. It must not end before."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, said(folder)
        assert time.monotonic() < limit, said(folder)
        time.sleep(0.005)


def gone(places: list[Path]) -> None:
    """Wait until these processes, folders of `/proc`, are no more."""
    limit = time.monotonic() + LIMIT
    while any(place.exists() for place in places):
        assert time.monotonic() < limit, f"{places} outlive their driver"
        time.sleep(0.05)


def rows_stored(database: Path) -> int:
    """Runs, and epochs of supernets."""
    if not database.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
            counts = "SELECT (SELECT COUNT(*) FROM runs) + (SELECT COUNT(*) FROM epochs)"
            return int(connection.execute(counts).fetchone()[0])
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0


def children(process: Process) -> list[Path]:
    """Folders of `/proc` of what a process has started."""
    try:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except OSError:  # it has ended
        found = []
    return [Path(f"/proc/{child}") for child in found]
