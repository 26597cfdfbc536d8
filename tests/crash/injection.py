"""Let a command of the program, as it is, be killed or refused by the system at one of its writes, by `strace`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.zygote import Call, Zygote

WRITES = ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink")
KILL, NO_SPACE, IO_ERROR = "signal=KILL", "error=ENOSPC", "error=EIO"

_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of `name`, on the files that are watched, in a thread."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Program:
    """Runs commands in a folder, each in a process of its own."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    def run(
        self, folder: Path, arguments: Sequence[str], *, strace: Sequence[str] = (), db: str | None = None
    ) -> tuple[int, str]:
        """Exit code and stderr of a command; minus the signal where one has ended it. The database is `nas.db` in the
        folder, by its whole path: a tracer looks for files by their names."""
        stderr = folder.with_suffix(".stderr")
        stderr.unlink(missing_ok=True)
        environment = {"NAS_DB": db or f"sqlite:///{folder}/nas.db"}
        call = Call("nas_cli.app:run", arguments, str(folder), str(stderr), environment=environment, stopped=True)
        child = self._zygote.start(call)
        _wait(child, "State", "T")
        tracer = _attach(child, strace) if strace else None
        os.kill(child, signal.SIGCONT)
        code = self._zygote.wait(child)
        assert code is not None
        if tracer is not None:
            tracer.wait()
        return code, stderr.read_text()

    def writes(self, folder: Path, arguments: Sequence[str], *, watched: bool = True) -> tuple[list[Point], list[str]]:
        """All writes of a command to files in its folder, and the names of those files. Without `watched` the names
        are none, and the calls are counted among all of their thread."""
        log = folder.with_suffix(".strace")
        code, said = self.run(folder, arguments, strace=["-y", "-e", f"trace={','.join(WRITES)}", "-o", str(log)])
        assert code == 0, said
        calls: Counter[tuple[str, str]] = Counter()
        points: dict[Point, None] = {}
        names: dict[str, None] = {}
        for line in log.read_text().splitlines():
            found = _CALL.match(line)
            inside = re.findall(rf"[<\"]{re.escape(str(folder))}/([^\">]+)[\">]", line)
            if found and found["name"] in ("rename", "unlink"):
                inside += [name for name in re.findall(r'"([^"]*)"', line) if not name.startswith("/")]
            if found and (inside or not watched):
                calls[found["thread"], found["name"]] += 1
                if inside:
                    points[Point(found["name"], calls[found["thread"], found["name"]])] = None
                    names.update(dict.fromkeys(inside))
        return list(points), list(names) if watched else []

    def fail(
        self, folder: Path, arguments: Sequence[str], point: Point, how: str, names: Sequence[str]
    ) -> tuple[int, str]:
        """Run a command that is killed, or gets an error, at a write."""
        watched = [word for name in names for word in ("-P", str(folder / name))]
        inject = ["-e", f"trace={point.name}", "-e", f"inject={point.name}:{how}:when={point.number}"]
        return self.run(folder, arguments, strace=[*watched, *inject, "-o", os.devnull])


@contextmanager
def program(*modules: str) -> Iterator[Program]:
    """The program with these modules imported. Skips where `strace` cannot take hold of a process."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace (apt-get install strace)")
    trial = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"processes cannot be traced here: {trial.stderr.strip()[:200]}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    with Zygote(["nas_cli.app", *modules], {**environment, "PYTHONDONTWRITEBYTECODE": "1"}) as zygote:
        yield Program(zygote)


def _attach(child: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    tracer = subprocess.Popen(["strace", "-q", "-f", "-p", str(child), *options], stderr=subprocess.DEVNULL)
    _wait(child, "TracerPid", str(tracer.pid))
    return tracer


def _wait(process: int, field: str, value: str) -> None:
    """Until a line of the kernel's account of a process begins with a value."""
    limit = time.monotonic() + 60
    while True:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        found = next(line.split(":")[1].split()[0] for line in lines if line.startswith(f"{field}:"))
        if found.startswith(value):
            return
        assert time.monotonic() < limit, f"process {process}: {field} is {found}, not {value}"
        time.sleep(0.001)
