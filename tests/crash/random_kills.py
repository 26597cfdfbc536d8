"""`kill -9` at random moments of whatever takes part in a search: `python -m tests.crash random OUT.csv --rounds N`.

After each round the study is the one of a search that nothing disturbed, nothing is left of those that were killed, and
no process outlives its driver. What is in the table is not tried again. Commands are forks of this process, but where
nodes of a Ray cluster are killed: there they are interpreters of their own.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from nas_cli.app import parser
from nas_core.errors import NasError
from studies.store.store import Store
from tests.crash import eager
from tests.crash.running import LIMIT, NAS, children, gone
from tests.crash.sessions import stored, write_toy
from tests.crash.test_every_write import PROGRAM

DRIVER, PROCESS, WORKER, NODE = "driver", "process", "worker", "node"
MOST = 2  # kills in a round: a third one may make a candidate fail


@dataclass(frozen=True)
class Kind:
    """Who is killed: the driver, one of its processes, a `nas worker` beside it, a node of the cluster that it uses."""

    victim: str
    more: Sequence[str] = ()  # what the driver is told
    workers: int = 0  # how many `nas worker` there are
    server: bool = False  # the database is on a PostgreSQL server


# What commands import when they come to it, so that forks have it.
IMPORTED = (
    *PROGRAM,
    "compressors.evaluator",
    "compressors.methods",
    "nas_cli.live_supernet",
    "nas_cli.run",
    "nas_cli.worker",
    "numpy.random",
    "rich.console",
    "sqlalchemy.dialects.postgresql.psycopg",
    "studies.executors.processes",
    "studies.executors.queue_worker",
    "studies.search.start",
    "training.checkpoint",
    "training.evaluators.own",
    "training.evaluators.screened",
    "training.evaluators.supernet",
    "training.evaluators.table",
    "training.evaluators.told",
    "training.evaluators.train",
)

_QUEUE = ("--executor", "queue:1")
KINDS: Mapping[str, Kind] = {
    "driver": Kind(DRIVER),
    "driver of processes": Kind(DRIVER, ("--workers", "2")),
    "process": Kind(PROCESS, ("--workers", "2")),
    "driver of a queue": Kind(DRIVER, _QUEUE, 2),
    "queue worker": Kind(WORKER, _QUEUE, 2),
    "driver on a server": Kind(DRIVER, ("--workers", "2"), server=True),
    "driver of a queue on a server": Kind(DRIVER, _QUEUE, 2, server=True),
    "queue worker on a server": Kind(WORKER, _QUEUE, 2, server=True),
    "ray node": Kind(NODE, ("--workers", "2")),
}

CHAINED = '''
"""Four steps, each of which follows from the one before: a step that is lost, doubled, or another candidate's shows."""

import hashlib, time

import torch

from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.task import Task
from training import checkpoint


class Chained:
    class Settings(Config):
        pause: float = 0.01

    metrics = (Metric("score"),)
    fidelity = Fidelity("epoch", 1, 4)
    deterministic = in_process = True
    task = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(settings), ""

    def __init__(self, settings):
        self.settings = settings

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        kept = checkpoint.load(context.workdir)
        words = kept.state["words"] if kept else []
        for step in range(1, 5):
            if step > len(words):
                time.sleep(self.settings.pause)
                before = words[-1] if words else f"{proposal.arch.key} {context.seed}"
                words = [*words, hashlib.sha256(before.encode()).hexdigest()]
                tensors = {"step": torch.tensor([step])}
                checkpoint.save(context.workdir, checkpoint.Checkpoint(step, tensors, {"words": words}))
            yield Report(step, {"score": int(words[step - 1][:8], 16) / 2**32}, 0.0)
'''

SEARCH = [
    *("search", "--study", "s", "--space", "toy.py:space", "--evaluator", "chained.py:Chained", "--seed", "3"),
    *("--strategy", "regularized-evolution", "-s", "strategy.population=4", "-s", "strategy.sample=2"),
    *("--trials", "10", "--lag", "4"),
]


class Command:
    """A command in a process of its own, which leads a session."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], fresh: bool) -> None:
        self._code: int | None = None
        said = folder / "said"
        if fresh:
            with said.open("ab") as file:
                given = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
                self._process = subprocess.Popen(
                    [*NAS, *arguments], cwd=folder, env=given, stdout=file, stderr=file, start_new_session=True
                )
            self.pid = self._process.pid
            return
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.chdir(folder)
                os.environ.update(environment)
                for stream in (1, 2):
                    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
                code = eager.run(arguments)
            except BaseException:  # a fork never comes back to what its parent was at
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = LIMIT) -> int:
        limit = time.monotonic() + (LIMIT if timeout is None else timeout)
        while self.poll() is None:
            assert time.monotonic() < limit, "it does not end"
            time.sleep(0.005)
        assert self._code is not None
        return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


@dataclass
class Round:
    """One search with all that takes part in it. `url`: of a new database; `cluster`: nodes that can be killed."""

    kind: Kind
    folder: Path
    url: str
    cluster: Any = None
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        write_toy(self.folder)
        (self.folder / "chained.py").write_text(CHAINED)

    def start(self, *arguments: str) -> Command:
        environment = {"NAS_DB": self.url, "NAS_FILES": str(self.folder / "files")}
        self.commands.append(Command(arguments, self.folder, environment, self.cluster is not None))
        return self.commands[-1]

    def drive(self) -> Command:
        more = () if self.cluster is None else ("--executor", f"ray:{self.cluster.address}")
        return self.start(*SEARCH, *self.kind.more, *more)

    def run(self, moments: Sequence[float]) -> int:
        """Search, and kill somebody so many seconds after the one before; how many kills there were."""
        driver, killed = self.drive(), 0
        try:
            workers = [self.work(driver) for _ in range(self.kind.workers)]
            for moment in moments:
                limit = time.monotonic() + moment
                while driver.poll() is None and time.monotonic() < limit:
                    time.sleep(0.002)
                if driver.poll() is not None:
                    break
                if self.kind.victim == DRIVER:
                    self.kill(driver)
                    driver = self.drive()
                    killed += 1
                elif self.kind.victim == PROCESS:
                    killed += self.kill_one_of(driver)
                elif self.kind.victim == WORKER:
                    self.kill(workers.pop(0))
                    workers.append(self.work(driver))
                    killed += 1
                else:
                    self.cluster.kill()
                    self.cluster.add(1)
                    killed += 1
            assert driver.wait() == 0
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            ended = {worker.wait() for worker in workers}
            assert ended <= {0, -signal.SIGTERM}, f"workers end with {ended}"  # one may not have listened yet
        except AssertionError as error:
            raise AssertionError(f"{error}\n{(self.folder / 'said').read_text()}") from None
        finally:
            for command in self.commands:
                with suppress(ProcessLookupError):
                    os.killpg(command.pid, signal.SIGKILL)
                command.wait()
        return killed

    def work(self, driver: Command) -> Command:
        """A worker, as soon as there is a study."""
        while not self.is_there() and driver.poll() is None:
            time.sleep(0.01)
        return self.start("worker", "s")

    def is_there(self) -> bool:
        with suppress(NasError), Store(self.url, self.folder / "files", reading=True) as store:
            return store.find_study("s") is not None
        return False

    def kill(self, command: Command) -> None:
        offspring = children(command)
        command.send_signal(signal.SIGKILL)
        command.wait()
        gone(offspring)

    def kill_one_of(self, driver: Command) -> bool:
        """One of its processes, whether there is one."""
        limit = time.monotonic() + 1
        while not (found := children(driver)) and driver.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        for process in found[:1]:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
                return True
        return False

    def check(self, expected: Mapping[str, Any]) -> None:
        """The study is the expected one, and nothing else is left."""
        with Store(self.url, self.folder / "files", reading=True) as store:
            found = stored(store)
            for table in ("attempts", "messages"):
                assert store.query(f"SELECT * FROM {table}")[1] == [], f"left in {table}"
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.folder / "nas.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        differing = [
            (one, other)
            for name in expected
            for one, other in zip(found.get(name, []), expected[name], strict=True)
            if one != other
        ]
        assert found.keys() == expected.keys()
        assert not differing, f"{differing[0][0]} is not {differing[0][1]}"
        left = sorted(path.name for path in (self.folder / "files" / "s").rglob("*"))
        assert set(left) <= {"lock", "queue"}, f"left: {left}"


class Rounds:
    """Rounds of kinds in a folder; `server` makes empty databases."""

    def __init__(self, folder: Path, server: Callable[[], str] | None, cluster: Any) -> None:
        self._folder, self._server, self._cluster = folder, server, cluster
        self._length: dict[str, float] = {}  # seconds, about, of a search of a kind
        alone = Round(Kind(DRIVER), folder / "alone", f"sqlite:///{folder}/alone/nas.db")
        begun = time.monotonic()
        alone.run(())
        self._alone = time.monotonic() - begun
        with Store(alone.url, folder / "alone" / "files", reading=True) as store:
            self._expected = stored(store)
        assert len(self._expected["s"]) >= 10
        self._numbers = iter(range(10**9))

    def check(self, name: str, number: int) -> int:
        """How many kills there were, at least one. Raises AssertionError."""
        rng = random.Random(f"{name} {number}")
        moments = [rng.random() for _ in range(rng.randint(1, MOST))]
        while True:
            length = self._length.get(name, self._alone)
            begun = time.monotonic()
            killed = self._run(name, [length * moment for moment in moments])
            if killed:
                self._length[name] = min(time.monotonic() - begun, 1.2 * length)
                return killed
            self._length[name] = 0.7 * length  # it was over

    def _run(self, name: str, moments: Sequence[float]) -> int:
        kind, place = KINDS[name], self._folder / f"round-{next(self._numbers)}"
        url = f"sqlite:///{place}/nas.db"
        if kind.server:
            assert self._server is not None
            url = self._server()
        round = Round(kind, place, url, self._cluster)
        killed = round.run(moments)
        try:
            round.check(self._expected)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{(place / 'said').read_text()}") from None
        shutil.rmtree(place)
        return killed


def main(arguments: Sequence[str]) -> int:
    """Exit code 1: not all studies were the same."""
    options = argparse.ArgumentParser(prog="python -m tests.crash random", description=__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--rounds", type=int, default=1000, help="of all kinds together")
    options.add_argument("--seconds", type=float, default=float("inf"), help="no round begins later")
    options.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; without any: all but the last")
    given = options.parse_intermixed_args(arguments)
    kinds = given.kinds or list(KINDS)[:-1]
    if unknown := set(kinds) - KINDS.keys():
        options.error(f"there is no kind {sorted(unknown)}")
    on_ray = {KINDS[name].victim == NODE for name in kinds}
    if len(on_ray) > 1:
        options.error("'ray node' goes alone: nothing can be a fork of a process that knows a cluster")
    wanted = [(name, number) for number, name in product(range(-(-given.rounds // len(kinds))), kinds)][: given.rounds]
    done = set()
    if given.out.exists():
        with given.out.open(newline="") as file:
            done = {(row[0], int(row[1])) for row in csv.reader(file)}
    left = [one for one in wanted if one not in done]
    if not left:
        print("nothing is left to be tried")
        return 0
    for module in IMPORTED:
        importlib.import_module(module)
    parser()
    gc.freeze()  # a fork that collects would copy every page of what is imported
    deadline, failed, tried = time.monotonic() + given.seconds, 0, 0
    with ExitStack() as opened, given.out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="nas-kills-")))
        server = None
        if any(KINDS[name].server for name, _ in left):
            from tests import postgresql

            server = opened.enter_context(postgresql.server())
        rounds = Rounds(folder, server, None)
        if True in on_ray:
            from tests.ray_cluster import nodes

            rounds = Rounds(folder / "ray", server, opened.enter_context(nodes(0, 1, 1)))
        for name, number in left:
            if time.monotonic() > deadline:
                break
            try:
                killed, ended = rounds.check(name, number), "same"
            except AssertionError as error:
                killed, ended, failed = 0, "failed", failed + 1
                print(f"{name} {number}: {error}", file=sys.stderr)
            tried += 1
            writer.writerow((name, number, killed, ended))
            file.flush()
    print(f"{tried} rounds, {failed} failed; {len(left) - tried} are left", flush=True)
    return int(failed > 0)
