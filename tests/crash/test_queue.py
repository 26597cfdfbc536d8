"""`nas worker` on a PostgreSQL server, killed and stopped in their work: the study is the one that one process makes.

In the gate workers are forks, and candidates are counted steps that keep in their folder how far they have come; under
`slow` they are fresh interpreters that train, and the driver is killed as well.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_cli.app import run as nas
from nas_core.strategy import State
from studies.analysis.verify import verify
from studies.search import start
from studies.setup.config import SearchConfig
from studies.store.queue import Attempt, Queue
from studies.store.store import Store
from tests.zygote import Call, Zygote

LEASE = 2.0

STEPS = '''
"""Candidates that sleep in five steps, and go on where the last process has left them."""

import os
import time

from nas_core.choice import Choice
from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.space import SearchSpace
from nas_core.task import Task


class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", tuple(range(2, 12))), Choice("depth", (1, 2, 3)))


space = Small()


class Steps:
    class Settings(Config):
        pass

    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
    metrics = (Metric("score"),)
    fidelity = Fidelity("epoch", 1, 5)
    deterministic = in_process = True

    @classmethod
    def open(cls, settings, problem):
        return cls(), ""

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        kept = context.workdir / "steps"
        done = kept.read_text().split() if kept.is_file() else []
        context.workdir.mkdir(parents=True, exist_ok=True)
        for step in range(1, 6):
            if step > len(done):
                time.sleep(float(os.environ.get("STEP", 0)))
                done.append(str(context.seed % 1000 + step))
                (context.workdir / "steps.tmp").write_text(" ".join(done))
                (context.workdir / "steps.tmp").rename(kept)
            yield Report(step, {"score": proposal.arch.values["width"] + sum(map(int, done)) / 1e4}, 0.0)
'''

EVOLUTION = {
    "strategy": "regularized-evolution",
    "strategy_config": {"population": 4, "sample": 2},
    "seed": 3,
    "lag": 4,
}
STEPPED = {"study": "s", "space": "steps.py:space", "evaluator": {"kind": "steps.py:Steps"}, "trials": 14, **EVOLUTION}
TRAINED = {
    "study": "s", "data": "digits", "split": {"limit": 240}, "size": "channels=4,cells=1", "epochs": 6, "trials": 16,
    "threads": 1, "device": "cpu", "checkpoint_seconds": 0, **EVOLUTION,
}  # fmt: skip


def forks(arguments: list[str]) -> int:
    """In a fork of a zygote: run the commands that one JSON text lists together, each in a fork of its own that leads a
    session and whose own processes are forks too. The number of each, and its exit code, are written to files."""
    usual = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: usual("fork")  # type: ignore[assignment]
    for number, command in enumerate(json.loads(arguments[0])):
        if os.fork() == 0:
            os.setsid()
            written(Path(f"pid-{number}"), os.getpid())
            written(Path(f"code-{number}"), nas(command))
            os._exit(0)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return 0


def written(path: Path, number: int) -> None:
    path.with_suffix(".new").write_text(str(number))
    path.with_suffix(".new").rename(path)


@contextmanager
def cluster(folder: Path, url: str, asked: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A study on a server, which its driver and its workers find in one folder."""
    made = Cluster(folder, url, asked, monkeypatch)
    try:
        yield made
    finally:
        made.store.close()


class Cluster:
    """A study on a server with its driver and its workers, in one folder that all of them see."""

    def __init__(self, folder: Path, url: str, asked: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.url, self.asked = folder, url, asked
        for name in [name for name in os.environ if name.startswith("NAS_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(folder)
        (folder / "steps.py").write_text(STEPS)
        self.store = Store(url, folder / "files")
        self.study = start.start(self.store, start.planned(SearchConfig(**asked))).study
        self.queue = Queue(self.store, self.study)

    @property
    def environment(self) -> dict[str, str]:
        return {"NAS_DB": self.url, "NAS_FILES": str(self.folder / "files"), "OMP_NUM_THREADS": "1", "STEP": "0.1"}

    def working(self) -> dict[int, Attempt]:
        """What each worker has, by its process number."""
        return {int((attempt.worker or "").rpartition(":")[2]): attempt for attempt in self.queue.attempts()}

    def until(self, holds: Callable[[], Any]) -> Any:
        """Wait for something to hold; what it answers."""
        limit = time.monotonic() + 300
        while not (found := holds()):
            assert time.monotonic() < limit, "\n".join(path.read_text() for path in self.folder.glob("said*"))
            time.sleep(0.05)
        return found

    def busy(self, pids: list[int]) -> tuple[int, Attempt]:
        """One of these workers that has something to do, and what."""
        found: tuple[int, Attempt] = self.until(
            lambda: next(((pid, mine) for pid, mine in self.working().items() if pid in pids), None)
        )
        return found

    def pause_beyond_its_lease(self, pids: list[int]) -> int:
        """Stop one of these workers, with its process, until another one has its candidate or has ended it."""
        pid, attempt = self.busy(pids)
        os.killpg(pid, signal.SIGSTOP)
        try:
            self.until(lambda: self.is_someone_elses(attempt))
        finally:
            os.killpg(pid, signal.SIGCONT)
        return pid

    def is_someone_elses(self, attempt: Attempt) -> bool:
        now = [one for one in self.queue.attempts() if one.number == attempt.number]
        return self.store.trial(self.study, attempt.number).finished or any(one.id > attempt.id for one in now)

    def check_whole(self) -> None:
        """The study is the one of a single process, each trial is there once, and nothing else is left."""
        with Store(f"sqlite:///{self.folder}/alone.db", self.folder / "alone") as store:
            start.run(store, start.start(store, start.planned(SearchConfig(**self.asked))))
            expected = contents(store)
        store, study = self.store, self.study
        assert contents(store) == expected
        assert [run.number for run in store.trials(study)] == list(range(len(expected)))
        assert not list(verify(store, study, start.resume(store, "s").objects))
        assert store.query("SELECT id FROM attempts")[1] == []
        assert store.query("SELECT attempt FROM messages")[1] == []
        assert not list(store.folder(study).glob("trial-*"))
        evaluated = [run for run in store.trials(study) if run.state == State.COMPLETE]
        assert sum(run.attempt for run in evaluated) > len(evaluated)  # the kills have met their candidates


def contents(store: Store) -> list[Any]:
    """The trials of the study, without what differs between machines and moments."""
    return [
        (
            replace(run, id=0, attempt=0, started=None, ended=None, verdict=replace(run.verdict, seconds=None)),
            [(report.step, report.metrics) for report in store.curve(run)],
        )
        for run in store.trials(store.study("s"), metrics=True)
    ]


def test_killed_and_paused_workers_make_the_same_study(
    zygote: Zygote, tmp_path: Path, postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers: one is killed in its candidate, another one stopped for longer than its lease and woken; those
    that are left when the search is over are asked to end."""
    commands = [["resume", "s", "--executor", "queue:2"], *[["worker", "s"]] * 3]
    here, path = "tests.crash.test_queue:forks", [str(Path(__file__).parents[2])]
    with cluster(tmp_path, postgresql(), STEPPED, monkeypatch) as place:
        given = {"environment": place.environment, "path": path}
        child = zygote.start(Call(here, [json.dumps(commands)], str(tmp_path), str(tmp_path / "said"), **given))
        codes, pids = ([tmp_path / f"{what}-{number}" for number in range(4)] for what in ("code", "pid"))
        place.until(lambda: all(file.is_file() for file in pids))
        driver, *workers = (int(file.read_text()) for file in pids)
        assert driver
        killed, _ = place.busy(workers)
        os.kill(killed, signal.SIGKILL)
        place.pause_beyond_its_lease([pid for pid in workers if pid != killed])
        place.until(codes[0].is_file)
        for pid in workers:
            if pid != killed:
                os.kill(pid, signal.SIGTERM)
        assert zygote.wait(child, 120) == 0
        assert [file.is_file() and file.read_text() for file in codes] == [
            False if pid == killed else "0" for pid in (driver, *workers)
        ]
        assert "not wanted any more" in (tmp_path / "said").read_text()
        place.check_whole()


@pytest.mark.slow
def test_four_workers_that_train(
    tmp_path: Path, postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In interpreters of their own: two are killed, one is stopped for longer than its lease and woken, one is asked to
    end in its work, the other when all is done; the driver is killed in between."""
    resume = ["resume", "s", "--executor", "queue:3"]
    with (
        cluster(tmp_path, postgresql(), TRAINED, monkeypatch) as place,
        (tmp_path / "said").open("ab") as said,
        ExitStack() as begun,
    ):

        def begin(*arguments: str) -> subprocess.Popen[bytes]:
            environment = {**os.environ, **place.environment}
            command = [sys.executable, "-m", "nas_cli", *arguments]
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
            begun.callback(process.kill)
            return process

        driver = begin(*resume)
        workers = {worker.pid: worker for worker in (begin("worker", "s") for _ in range(4))}
        for _ in range(2):
            workers.pop(place.busy(list(workers))[0]).kill()
        driver.kill()
        driver.wait()
        place.busy(list(workers))
        place.until(lambda: not any(pid in place.working() for pid in workers))  # they end what they have, and wait
        driver = begin(*resume)
        place.pause_beyond_its_lease(list(workers))
        leaving = workers.pop(place.busy(list(workers))[0])
        leaving.terminate()
        assert leaving.wait(300) == 0
        assert driver.wait(900) == 0, (tmp_path / "said").read_text()
        (last,) = workers.values()
        last.terminate()
        assert last.wait(300) == 0
        assert "not wanted any more" in (tmp_path / "said").read_text()
        place.check_whole()
