"""Ray: the same study on a cluster of nodes that die, and what does not fit is said in a line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_cli.app import run as nas
from nas_core.errors import MachineError, NasError, Notice, UsageError
from nas_core.evaluation import Report
from nas_core.records import COMPRESS, RETRAIN, Run
from nas_core.strategy import State
from studies.analysis.verify import verify
from studies.events import EpochEnded, Event, Finished, Reported
from studies.executors import ray as on_ray
from studies.executors.choose import candidates, executor
from studies.executors.ray import Request
from studies.executors.where import HERE, Where
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.start import Watching, planned, run, start
from studies.setup.config import SearchConfig
from studies.store import supernets
from studies.store.store import Store
from tests.cli import test_bench as table
from tests.crash.sessions import contents
from tests.ray_cluster import Nodes, nodes

EVALUATOR = """
import os, time
from pathlib import Path

from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.task import Task


class Count:
    class Settings(Config):
        pass

    metrics = (Metric("score"),)
    fidelity = Fidelity("epoch", 1, 3, continues=True)
    deterministic = in_process = True
    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(), "made"

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        value = list(proposal.arch.values.values()).count("skip_connect") + context.seed % 1000 / 1000
        for step in (1, 2, 3):
            with open(Path(__file__).with_name("steps"), "a") as steps:
                print(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=steps, flush=True)
            print("no part of the data")
            time.sleep(0.05)
            yield Report(step, {"score": value * step})
"""
TRAINING: dict[str, Any] = {
    "size": "channels=4,cells=1", "strategy": "regularized-evolution", "data": "digits", "split": {"limit": 200},
    "epochs": 3, "trials": 5, "lag": 4, "threads": 1, "device": "cpu", "checkpoint_seconds": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(0, 1, 1) as made:
        yield made


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an evaluator that needs no torch, and writes down in which process it takes its steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(EVALUATOR)
    return tmp_path


def config(**changes: Any) -> SearchConfig:
    values = {"evaluator": "mine.py:Count", "strategy": "random", "trials": 12, "lag": 4, **changes}
    return SearchConfig(**values)


def searched(name: str, where: Where = HERE, watching: Watching | None = None, **changes: Any) -> list[Run]:
    """The runs of a study that was searched to its end."""
    with Store(f"sqlite:///{name}.db") as store:
        opened = start(store, planned(config(study=name, **changes)))
        assert run(store, opened, where=where, watching=watching) == Ending.TRIALS
        assert list(verify(store, opened.study, opened.objects)) == []
        left = [path.name for path in store.folder(opened.study).rglob("*")]
        assert left == ["lock"]
        return told(store, name)


def told(store: Store, name: str) -> list[Run]:
    """Without what may differ: times, and how often a trial was begun."""
    return [
        replace(one, attempt=0, started=None, ended=None, verdict=replace(one.verdict, seconds=None))
        for one in store.trials(store.study(name), metrics=True)
    ]


class Losing(Watching):
    """Loses all nodes that work at the first report, and gets others."""

    def __init__(self, cluster: Nodes) -> None:
        self.cluster, self.lost = cluster, False

    def search(self, *_: Any) -> Any:
        return nullcontext(self.hear)

    def hear(self, event: Event) -> None:
        if isinstance(event, Reported) and not self.lost:
            self.lost = True
            for _ in range(2):
                self.cluster.kill()
                self.cluster.add(1)


def test_lost_nodes_cost_attempts_and_change_no_bit(
    cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    losing = Losing(cluster)
    settings = {**TRAINING, "evaluator": "train"}
    away = searched("away", Where(2, f"ray:{cluster.address}"), losing, **settings)
    assert losing.lost
    assert [one.state for one in away] == [State.COMPLETE] * 5
    assert away == searched("here", **settings)
    with Store("sqlite:///away.db") as store:
        attempts = [one.attempt for one in store.trials(store.study("away"))]
    assert 2 <= max(attempts) <= 3  # of what ran there, on both of them one after the other, it may be
    assert "Raylet" not in capfd.readouterr().out  # Ray speaks to nobody


def test_a_killed_driver_takes_all_with_it_and_is_resumed(cluster: Nodes, mine: Path) -> None:
    import psutil

    asked = ["--evaluator", "mine.py:Count", "--strategy", "random", "--trials", "12", "--lag", "4", "--study", "away"]
    away = ["--workers", "2", "--executor", f"ray:{cluster.address}", "--db", "away.db"]
    command = [sys.executable, "-m", "nas_cli", "search", *asked, *away]
    with open("out", "wb") as out:
        driver = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    steps = mine / "steps"
    while not (steps.is_file() and len(steps.read_text().splitlines()) > 6):
        assert driver.poll() is None, Path("out").read_text()
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    workers = {int(line.split()[0]) for line in steps.read_text().splitlines()}
    while any(psutil.pid_exists(worker) for worker in workers):
        time.sleep(0.02)
    left = steps.read_text()
    with Store("sqlite:///away.db") as store:
        assert 0 < sum(one.finished for one in told(store, "away")) < 12
    resumed = searched("away", Where(2, f"ray:{cluster.address}"))
    assert len(resumed) == 12
    assert steps.read_text().startswith(left)
    assert resumed == searched("here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("files", "does not see the folder '"),
        ("version", "has version 0.1.0 of nas-search, this is 9.9; install the same on all nodes"),
        ("evaluator", "there is no file 'mine.py'\nNodes read what this machine reads, at the same paths: share '"),
    ],
)
def test_what_a_node_lacks_is_said_and_the_study_goes_on(
    cluster: Nodes, mine: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    """Played: all nodes are on this machine, so what one of them lacks goes away while it starts."""
    started = on_ray.Actors.start

    def start_without(self: on_ray.Actors, place: int) -> on_ray.Actor:
        if change == "files":
            self._seen.write_text("of another disk")
        if change == "evaluator" and place == 0:
            Path("mine.py").rename("elsewhere.py")
        return started(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(on_ray.Actors, "start", start_without)
        if change == "version":
            patch.setattr(on_ray.distribution, "version", lambda: "9.9")
        with pytest.raises(MachineError) as raised:
            searched("s", Where(2, f"ray:{cluster.address}"))
    assert str(raised.value).startswith(f"node {socket.gethostname()}")
    assert said in str(raised.value)
    if change == "evaluator":
        Path("elsewhere.py").rename("mine.py")
    assert len(searched("s")) == 12


def test_more_workers_than_room_wait_and_no_candidate_waits_for_them(cluster: Nodes, mine: Path) -> None:
    with pytest.warns(Notice, match="room for 2 of 3 workers, of 1 CPU each; the others wait"):
        assert len(searched("s", Where(3, f"ray:{cluster.address}"))) == 12


def test_a_share_of_a_gpu(cluster: Nodes, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a node that says that it has one. Its candidates see it as the only one; what cannot fit is refused."""
    cluster.add(1, gpus=1)
    with Store("sqlite:///s.db") as store:
        opened = start(store, planned(config(study="s", trials=6)))
        work = replace(candidates(store, opened.study, opened.objects), device="cuda")
        address = f"ray:{cluster.address}"
        monkeypatch.setattr(on_ray.Cluster, "memory", lambda self: [40.0, 24.0])
        with pytest.raises(MachineError, match=r"--gpu-memory 25: a GPU has 24.0 GiB"):
            executor(work, Where(2, address, gpu_memory=25.0))
        with pytest.warns(Notice, match=r"room for 2 of 3 workers, of 0.5 GPU each"):
            pool = executor(work, Where(3, address, gpu_memory=12.0))
        ending = Search(store, opened.study, opened.objects, executor=pool).run(opened.budget)
        assert (ending, len(told(store, "s"))) == (Ending.TRIALS, 6)
    lines = [line.split() for line in (mine / "steps").read_text().splitlines()]
    assert {gpu for _, gpu in lines} == {"0"}
    assert len({worker for worker, _ in lines}) <= 2


def test_no_cluster_no_room_no_ray(cluster: Nodes, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        unused = server.getsockname()[1]
    with Store("sqlite:///s.db") as store:
        opened = start(store, planned(config(study="s")))
        work = candidates(store, opened.study, opened.objects)
        for address, kind, words in (
            (f"127.0.0.1:{unused}", MachineError, f"no Ray cluster answers at 127.0.0.1:{unused}"),
            ("ray://10.0.0.1:10001", UsageError, "write ray:HOST:PORT"),
            ("here", UsageError, "write ray:HOST:PORT"),
        ):
            with pytest.raises(NasError, match=words) as raised:
                executor(work, Where(2, f"ray:{address}"))
            assert type(raised.value) is kind
        monkeypatch.setattr(on_ray.Cluster, "nodes", lambda self: [{"CPU": 4.0}])
        with pytest.raises(MachineError, match=r"no node .* has room: a worker needs 0.25 GPU, the largest has 0 GPUs"):
            executor(replace(work, device="cuda:1"), Where(2, f"ray:{cluster.address}", per_gpu=4))
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MachineError, match=r"pip install 'nas-search\[ray\]'"):
            executor(work, Where(2, "ray"))
        assert told(store, "s") == []


@pytest.mark.parametrize("lost", ["the head", "its node"])
def test_a_cluster_that_goes_away_is_said_and_the_study_goes_on(
    cluster: Nodes, mine: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Played: from the first report on it is looked for where it is not. One that is killed: below."""
    joined: list[on_ray.Cluster] = []

    class Leaving(Losing):
        def hear(self, event: Event) -> None:
            if isinstance(event, Reported) and lost == "the head":
                joined[0].head = f"127.0.0.1:{unused}"
            elif isinstance(event, Reported):
                joined[0]._node = "another"

    def remembered(address: str, join: Callable[[str], on_ray.Cluster] = on_ray.Cluster.joined) -> on_ray.Cluster:
        joined.append(join(address))
        return joined[0]

    with socket.create_server(("127.0.0.1", 0)) as server:
        unused = server.getsockname()[1]
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "LOOK", 0.02)
        patch.setattr(on_ray, "AWAY", 0.1)
        patch.setattr(on_ray.Cluster, "joined", remembered)
        with pytest.raises(MachineError) as raised:
            searched("away", Where(2, f"ray:{cluster.address}"), Leaving(cluster))
    said = f"the head of the Ray cluster, 127.0.0.1:{unused}, does not answer any more"
    if lost != "the head":
        said = f"this machine is no node of the Ray cluster {cluster.address} any more"
    assert str(raised.value) == f"{said}; what was found so far is stored: resume it, on any executor"
    with Store("sqlite:///away.db") as store:
        assert sum(one.finished for one in told(store, "away")) < 12
        assert {one.tries for one in store.trials(store.study("away"))} == {0}
    assert searched("away", Where(2, "processes")) == searched("here")


@pytest.mark.parametrize(
    ("request_", "node", "room"),
    [
        (Request(1, 0), {"CPU": 4.0}, 4),
        (Request(3, 0), {"CPU": 8.0, "GPU": 1.0}, 2),
        (Request(0, 1 / 3), {"CPU": 0.0, "GPU": 2.0}, 6),
        (Request(0, 1), {"CPU": 64.0}, 0),
    ],
)
def test_how_many_a_node_has_room_for(request_: Request, node: dict[str, float], room: int) -> None:
    assert request_.room(node) == room


def test_a_bench_is_the_same(cluster: Nodes, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write(mine)
    command = [word.replace(table.CONTENDERS, "random,ea=regularized-evolution") for word in table.COMMAND]
    assert nas([*command, "--db", "here.db"]) == 0
    away = ["--db", "away.db", "--executor", f"ray:{cluster.address}"]
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "machine", lambda: "another")  # this one, as nodes see it
        assert nas([*command, *away]) == 5
    assert nas([*command, *away]) == 0
    assert table.children(mine / "away.db") == table.children(mine / "here.db") != {}
    assert nas([*command, "--db", "none.db", "--executor", "inline"]) == 2


@pytest.mark.slow
def test_trainings_and_compressions(cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compression reads the database: not on other machines while that is a SQLite file. A training needs none."""
    monkeypatch.chdir(tmp_path)
    away = ["--workers", "2", "--executor", f"ray:{cluster.address}"]
    small = ["--size", "channels=4,cells=1", "--epochs", "1"]
    assert nas(["search", "--study", "s", "--trials", "1", "--threads", "1", "-s", "split.limit=200", *small]) == 0
    train = ["train", "s:0", "--seeds", "2", *small]
    compress = ["compress", "s:0/train-1", "--method", "magnitude", "--target", "params<=0.8x", "--epochs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "machine", lambda: "another")  # this one, as nodes see it
        assert nas([*train, *away]) == 0
        assert nas([*compress, *away]) == 5
    assert nas([*compress, *away]) == 0
    assert nas([*train, "-s", "lr_end=0"]) == 0
    with Store("sqlite:///nas.db") as store:
        trial = store.trial(store.study("s"), 0)
        trained = [one.metrics for one in store.below(trial, RETRAIN)]
        assert len(trained) == 4
        assert trained[:2] == trained[2:]
        assert [one.state for one in store.below(trial, COMPRESS)][-1] == State.COMPLETE


@pytest.mark.slow
def test_a_supernet_whose_node_is_lost(cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training goes on from the checkpoint on another node, to the same bits (`test_one_shot.py`: processes)."""
    monkeypatch.chdir(tmp_path)

    class Lost(Losing):
        def supernet(self, *_: Any) -> Any:
            return nullcontext(self.epoch)

        def epoch(self, event: Event) -> None:
            if isinstance(event, EpochEnded):
                self.hear(Reported("supernet", 0, Report(0, {})))

    def trained(name: str, where: Where, watching: Watching | None) -> Any:
        asked = {
            **TRAINING,
            "strategy": "darts",
            "strategy_config": {"epochs": 4},
            "trials": None,
            "evaluator": "train",
        }
        with Store(f"sqlite:///{name}.db", Path(name)) as store:
            opened = start(store, planned(config(study="s", **asked)))
            assert run(store, opened, where=where, watching=watching) == Ending.DERIVED
            found = supernets.find(store, opened.study)
            assert found is not None
            attempts.append(found.attempt)
            return contents(Path(f"{name}.db"), durations=False)

    attempts: list[int] = []
    losing = Lost(cluster)
    assert trained("away", Where(1, f"ray:{cluster.address}"), losing) == trained("here", HERE, None)
    assert losing.lost
    assert attempts[0] > attempts[1] == 1


@pytest.mark.slow
def test_200_candidates_on_three_nodes_two_of_which_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**TRAINING, "evaluator": "train", "trials": 200, "lag": 8}
    with nodes(1, 1, 1) as cluster:

        class Twice(Losing):
            def hear(self, event: Event) -> None:
                if isinstance(event, Finished) and event.number in (50, 120):
                    self.cluster.kill()

        away = searched("away", Where(3, f"ray:{cluster.address}"), Twice(cluster), **settings)
    assert sum(one.state == State.COMPLETE for one in away) == 200
    assert [one.number for one in away] == list(range(len(away)))
    assert away == searched("here", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["gcs_server", "raylet"])
def test_a_head_that_is_killed(mine: Path, server: str) -> None:
    """The command says so in one line before Ray ends its process, with exit code 5; its workers do not go on."""
    import psutil

    (mine / "mine.py").write_text(EVALUATOR.replace("0.05", "0.3"))
    asked = ["--evaluator", "mine.py:Count", "--strategy", "random", "--trials", "200", "--lag", "4", "--study", "away"]
    with nodes(1, 1) as own:
        away = ["--workers", "2", "--executor", f"ray:{own.address}", "--db", "away.db"]
        with open("out", "wb") as out:
            driver = subprocess.Popen(
                [sys.executable, "-m", "nas_cli", "search", *asked, *away], stdout=out, stderr=subprocess.STDOUT
            )
        steps = mine / "steps"
        while not (steps.is_file() and len(steps.read_text().splitlines()) > 6):
            assert driver.poll() is None, Path("out").read_text()
            time.sleep(0.05)
        own.kill_head(server)
        assert driver.wait(timeout=120) == 5, Path("out").read_text()
        said = [line for line in Path("out").read_text().splitlines() if line.startswith("nas: ")]
        assert len(said) == 1
        assert "Ray cluster" in said[0]
        workers = {int(line.split()[0]) for line in steps.read_text().splitlines()}
        limit = time.monotonic() + 90
        while any(psutil.pid_exists(worker) for worker in workers):
            assert time.monotonic() < limit
            time.sleep(0.1)
    with Store("sqlite:///away.db") as store:
        assert 0 < sum(one.finished for one in told(store, "away")) < 200
        assert max(one.tries for one in store.trials(store.study("away"))) <= 1
    (mine / "mine.py").write_text(EVALUATOR)


@pytest.mark.slow
def test_a_driver_that_is_killed_ten_times(cluster: Nodes, tmp_path: Path) -> None:
    from tests.crash.test_kill import TRAINING as training
    from tests.crash.test_kill import check_kills, fresh

    workers = ("--workers", "2", "--executor", f"ray:{cluster.address}")
    check_kills(fresh, tmp_path, [*training, "--lag", "4"], kills=10, per_study=2, durations=False, workers=workers)
