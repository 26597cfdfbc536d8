"""Let a command of the program, as it is, be killed or refused by the system at one of its writes, by `strace`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

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

    def __init__(self, *modules: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
        self._zygote = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py")), "nas_cli.app", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        )

    def close(self) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait()

    def run(
        self, folder: Path, arguments: Sequence[str], *, strace: Sequence[str] = (), db: str | None = None
    ) -> tuple[int, str]:
        """Exit code and stderr of a command; minus the signal where one has ended it. The database is `nas.db` in the
        folder, by its whole path: a tracer looks for files by their names."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        stderr = folder.with_suffix(".stderr")
        stderr.unlink(missing_ok=True)
        streams = {"stdout": os.devnull, "stderr": str(stderr)}
        job = {"folder": str(folder), "arguments": list(arguments), "db": db or f"sqlite:///{folder}/nas.db"}
        print(json.dumps(job | streams), file=self._zygote.stdin, flush=True)
        child = int(self._zygote.stdout.readline())
        _wait(child, "State", "T")
        tracer = _attach(child, strace) if strace else None
        os.kill(child, signal.SIGCONT)
        code = int(self._zygote.stdout.readline())
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
    found = Program(*modules)
    try:
        yield found
    finally:
        found.close()


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
