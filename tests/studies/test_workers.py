"""Worker processes: the same study whatever their number, and nobody pays for a candidate that kills or hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_core.errors import UsageError
from nas_core.records import Run
from nas_core.strategy import State
from studies.analysis.verify import verify
from studies.events import Event, Listener, Reported, silent
from studies.executors import Executor, pool
from studies.executors.inline import Inline
from studies.executors.pool import Pool
from studies.executors.processes import Processes
from studies.executors.worker import Candidates
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup import assemble
from studies.setup.config import SearchConfig
from studies.store.store import Store

SPACE = """
import multiprocessing
import os
import signal
import time

from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", tuple(range(2, 12))), Choice("kind", KINDS))

    def build(self, arch, task, size):
        from torch import nn

        if arch.values["kind"] == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if arch.values["kind"] == "hangs":
            time.sleep(3600)
        if arch.values["kind"] == "starts":
            process = multiprocessing.get_context("fork").Process(target=int)
            process.start()
            process.join()
        width = arch.values["width"]
        channels, height, _ = task.input_shape
        return nn.Sequential(
            nn.Flatten(), nn.Linear(channels * height * height, width), nn.ReLU(), nn.Linear(width, task.outputs)
        )


space = Small()
"""


class Studies:
    """Searches on the space above, in one database each."""

    def __init__(self, folder: Path, kinds: tuple[str, ...] = ("plain",)) -> None:
        self.folder = folder
        (folder / "space.py").write_text(SPACE.replace("KINDS", repr(kinds)))

    def config(self, **changes: Any) -> SearchConfig:
        values: dict[str, Any] = {
            "space": f"{self.folder / 'space.py'}:space", "strategy": "random", "data": "digits", "epochs": 12,
            "split": {"limit": 200}, "lag": 4, "threads": 1, "device": "cpu", "checkpoint_seconds": 0.0,
        }  # fmt: skip
        return SearchConfig(**{**values, **changes})

    def search(
        self,
        name: str,
        workers: int,
        trials: int = 6,
        listener: Listener = silent,
        stopping: Callable[[], bool] = lambda: False,
        **changes: Any,
    ) -> tuple[Ending, list[Run]]:
        spec = assemble.describe(self.config(**changes)).spec
        with Store(f"sqlite:///{self.folder / name}.db") as store:
            study = store.find_study("s") or store.create_study("s", spec, assemble.StopAt(trials=trials))
            parts = assemble.build(spec)
            made: Executor = (
                Inline(parts.evaluator)
                if workers == 1
                else Pool(Processes(Candidates(spec), parts.trial_seconds), workers, parts.trial_seconds)
            )
            search = Search(store, study, parts, listener=listener, stopping=stopping, executor=made)
            ending = search.run(assemble.StopAt(trials=trials))
            if ending != Ending.INTERRUPTED:
                assert list(verify(store, study, parts)) == []
            return ending, list(store.trials(study, metrics=True))


def told(runs: list[Run]) -> list[Run]:
    """Without what may differ: times, and how often a trial was begun."""
    return [
        replace(run, attempt=0, started=None, ended=None, verdict=replace(run.verdict, seconds=None)) for run in runs
    ]


class Killer:
    """Kills all workers at the first report."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Reported) and not self.killed:
            self.killed = [victim.pid or 0 for victim in multiprocessing.active_children()]
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("forked_workers")
def test_any_number_of_workers_makes_the_same_study(tmp_path: Path) -> None:
    studies, killer = Studies(tmp_path), Killer()
    ending, one = studies.search("one", 1, epochs=4)
    assert (ending, len(one), {run.state for run in one}) == (Ending.TRIALS, 6, {State.COMPLETE})
    _, two = studies.search("two", 2, listener=killer, epochs=4)
    assert killer.killed
    assert sum(run.attempt for run in two) > 6
    assert told(two) == told(one)
    _, four = studies.search("four", 4, epochs=4)
    assert told(four) == told(one)
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("forked_workers")
def test_candidates_that_kill_or_hang_cost_themselves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.5)
    studies = Studies(tmp_path, ("plain", "kills", "hangs"))
    ending, runs = studies.search("s", 2, trials=4, trial_time=20.0, lag=2, seed=1)
    assert ending == Ending.TRIALS
    reasons: dict[Any, set[str]] = {}
    for run in runs:
        reasons.setdefault(run.arch.values["kind"], set()).add((run.verdict.reason or str(run.state)).split(":")[0])
    assert all("SIGKILL" in (run.verdict.reason or "") for run in runs if run.arch.values["kind"] == "kills")
    assert reasons == {"plain": {"complete"}, "kills": {"worker-died"}, "hangs": {"time-limit"}}


@pytest.mark.usefixtures("forked_workers")
def test_candidates_may_have_processes_of_their_own(tmp_path: Path) -> None:
    _, runs = Studies(tmp_path, ("starts",)).search("s", 2, trials=2, epochs=1)
    assert [run.verdict.reason for run in runs] == [None, None]


@pytest.mark.usefixtures("forked_workers")
def test_interrupted_workers_go_on_from_their_checkpoints(tmp_path: Path) -> None:
    class Stop:
        now = False

        def __call__(self, event: Event) -> None:
            self.now = self.now or isinstance(event, Reported)

    studies, stop = Studies(tmp_path), Stop()
    ending, runs = studies.search("s", 2, listener=stop, stopping=lambda: stop.now, epochs=3)
    assert ending == Ending.INTERRUPTED
    assert any(run.state == State.RUNNING for run in runs)
    assert list((tmp_path / "s-files" / "s").glob("trial-*/checkpoint-*.json"))
    _, resumed = studies.search("s", 2, epochs=3)
    _, whole = studies.search("whole", 1, epochs=3)
    assert told(resumed) == told(whole)
    assert not list((tmp_path / "s-files" / "s").glob("trial-*"))


@pytest.mark.usefixtures("forked_workers")
def test_free_order_can_be_verified(tmp_path: Path) -> None:
    studies = Studies(tmp_path)
    ending, runs = studies.search("s", 2, epochs=2, order="free", strategy="regularized-evolution", strategy_config={
        "population": 3, "sample": 2
    })  # fmt: skip
    assert ending == Ending.TRIALS
    assert sum(run.state == State.COMPLETE for run in runs) == 6
    assert sorted(-1 if run.told is None else run.told for run in runs) == list(range(len(runs)))


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    studies = Studies(tmp_path)
    spec = assemble.describe(studies.config()).spec
    executor = Pool(Processes(Candidates(spec.model_copy(update={"space_hash": "0" * 16}))), 2)
    with Store(f"sqlite:///{tmp_path}/s.db") as store:
        study = store.create_study("s", spec, assemble.StopAt(trials=2))
        with pytest.raises(UsageError, match="has changed since"):
            Search(store, study, assemble.build(spec), executor=executor).run(assemble.StopAt(trials=2))


def test_processes_never_hear_of_ctrl_c_from_their_first_moment_on(tmp_path: Path) -> None:
    """Of a driver that has started none before: what starts with the first one must not let signals through again."""
    (tmp_path / "driver.py").write_text(
        "import multiprocessing, signal\n"
        "from studies.executors.processes import uninterrupted\n"
        "def child(pipe):\n"
        "    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    near, far = spawn.Pipe()\n"
        "    with uninterrupted():\n"
        "        process = spawn.Process(target=child, args=(far,))\n"
        "        process.start()\n"
        "    assert near.recv(), 'the child hears of Ctrl-C'\n"
        "    process.join()\n"
        "    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), 'the driver does not'\n"
    )
    done = subprocess.run([sys.executable, "driver.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
