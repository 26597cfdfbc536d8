"""Candidates that go wrong in every way at once: each of them fails with a reason of its own, and the search ends as if
they were any others."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from studies.executors import pool, time_limit
from tests.crash import eager
from tests.crash.running import Fork, ended
from tests.crash.sessions import write_toy

ROOM = 120_000_000  # bytes that a process may have beside what it begins with

MOODY = '''
import math, os, signal, time

from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.task import Task


def hang():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass


def allocate():
    held = []
    while True:
        held.append(bytearray(10_000_000))


class Moody:
    """What a candidate does is in its depth."""

    class Settings(Config):
        pass

    metrics = (Metric("score"),)
    fidelity = Fidelity("epoch", 1, 2)
    deterministic = in_process = True
    task = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(), ""

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        depth = proposal.arch.values["depth"]
        yield Report(1, {"score": 0.5}, 0.0)
        if depth == 1:
            hang()
        if depth == 2:
            allocate()
        if depth == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield Report(2, {"score": math.nan if depth == 4 else proposal.arch.values["width"] / 100}, 0.0)
'''


def bounded(arguments: Sequence[str]) -> int:
    """`nas` whose processes may not have much more memory than they begin with, and wait little."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + ROOM, held + ROOM))
    pool.GRACE = time_limit.GRACE = 0.3
    return eager.run(arguments)


def test_each_fails_for_a_reason_of_its_own(start: Callable[..., Fork], tmp_path: Path) -> None:
    place = write_toy(tmp_path / "work")
    (place / "moody.py").write_text(MOODY)
    toy = (place / "toy.py").read_text()
    toy = toy.replace("(1, 2, 3, 4)", "(1, 2, 3, 4, 5)").replace('("relu", "silu")', '("relu",)')
    (place / "toy.py").write_text(toy)
    search = ["search", "--study", "s", "--space", "toy.py:space", "--evaluator", "moody.py:Moody", "--lag", "3"]
    command = [*search, "--strategy", "random", "--trials", "15", "--seed", "1", "--trial-time", "3", "--workers", "3"]
    code, text = ended(start(command, place, function="tests.crash.test_candidates:bounded"), place)
    assert code == 0, text
    assert "Traceback" not in text
    (place / "stdout").unlink()
    code, text = ended(start(["trials", "s", "--json"], place), place)
    found: dict[int, set[tuple[str, str]]] = {}
    for trial in json.loads((place / "stdout").read_text()):
        reason = (trial["reason"] or "").partition(":")
        found.setdefault(trial["architecture"]["depth"], set()).add((trial["state"], reason[0]))
    assert found == {
        1: {("failed", "time-limit")},
        2: {("failed", "out-of-memory")},
        3: {("failed", "worker-died")},
        4: {("failed", "not-finite")},
        5: {("complete", "")},
    }
    assert "SIGKILL, which the system sends when memory runs out" in (place / "stdout").read_text()
