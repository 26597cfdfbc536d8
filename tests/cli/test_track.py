"""`--track`: what other programs are shown is what the store holds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nas_cli import tracking
from nas_cli.tracking import Tracked
from studies.store.store import Store
from tests.cli.test_own_evaluator import FILE, SEARCH

Say = Callable[..., tuple[int, str, str]]
TOLD = ("complete", "failed")


@pytest.fixture(autouse=True)
def mine(folder: Path) -> None:
    (folder / "mine.py").write_text(FILE)


def stored(say: Say, study: str) -> dict[int, dict[str, Any]]:
    trials = json.loads(say("trials", study, "--json")[1])
    return {trial["number"]: trial for trial in trials if trial["state"] in TOLD}


def scalars(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_has_what_the_store_has(folder: Path, say: Say) -> None:
    pytest.importorskip("tensorboard")
    code, _, err = say(*SEARCH, "--study", "a", "--trials", "5", "--track", "tensorboard:board")
    assert code == 0, err
    trials = stored(say, "a")
    assert {int(path.name) for path in (folder / "board" / "a").iterdir()} == set(trials)
    assert any(trial["state"] == "failed" for trial in trials.values())
    for number, trial in trials.items():
        found = scalars(folder / "board" / "a" / str(number))
        assert {name: pairs[-1][1] for name, pairs in found.items()} == pytest.approx(trial["metrics"])
    # What is missing there is added, what is there stays; a folder that is not whole was nobody's.
    before = {path: path.stat().st_mtime_ns for path in (folder / "board" / "a").glob("*/*")}
    (folder / "board" / "a" / ".partial").mkdir()
    assert say("resume", "a", "--trials", "7")[0] == 0
    assert say("resume", "a", "--trials", "8", "--track", "tensorboard:board")[0] == 0
    assert {int(path.name) for path in (folder / "board" / "a").iterdir()} == set(stored(say, "a"))
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


class Kept:
    """A tracker that keeps all it is told, of several searches."""

    trials: ClassVar[list[Tracked]] = []
    fails_at: ClassVar[int | None] = None

    def __init__(self, place: str, study: str) -> None:
        self.place, self.study = place, study

    def known(self) -> Collection[int]:
        return {trial.number for trial in self.trials}

    def add(self, trial: Tracked) -> None:
        if trial.number == self.fails_at:
            raise ConnectionError("the server\nis away")
        self.trials.append(trial)

    def close(self) -> None:
        pass


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    monkeypatch.setattr(tracking, "TRACKERS", {"kept": "tests.cli.test_track:Kept"})
    from tests.cli import test_track

    monkeypatch.setattr(test_track.Kept, "trials", [])
    monkeypatch.setattr(test_track.Kept, "fails_at", None)
    return test_track.Kept


def test_curves_are_told_as_they_are_stored(folder: Path, say: Say, kept: type[Kept]) -> None:
    small = ("--size", "channels=2,cells=1", "-s", "split.limit=200", "--threads", "1")
    code, _, err = say("search", "--study", "b", "--epochs", "2", "--trials", "1", *small, "--track", "kept:here")
    assert code == 0, err
    (trial,) = kept.trials
    with Store(f"sqlite:///{folder / 'nas.db'}") as store:
        run = store.trial(store.study("b"), 0)
        curve = store.curve(run)
    assert [report.step for report in curve] == [1, 2]
    assert [(step, report.metrics) for step, report in trial.steps()] == [(one.step, one.metrics) for one in curve]
    assert (trial.address, trial.choices, trial.metrics) == ("b:0", run.arch.values, run.metrics)


def test_a_tracker_that_fails_is_named_once_and_brought_up_to_date_later(say: Say, kept: type[Kept]) -> None:
    kept.fails_at = 3
    code, _, err = say(*SEARCH, "--study", "a", "--trials", "6", "--track", "kept:here")
    assert code == 0
    assert err.count("--track kept has stopped: ConnectionError: the server is away") == 1
    assert {trial.number for trial in kept.trials} == {number for number in stored(say, "a") if number < 3}
    kept.fails_at = None
    assert say("resume", "a", "--track", "kept:here")[0] == 0
    assert [trial.number for trial in kept.trials] == sorted(stored(say, "a"))  # each once


def test_steps_that_are_no_whole_numbers_are_counted() -> None:
    from nas_core.evaluation import Report

    reports = [Report(step, {}) for step in (0.5, 1.0, 2.5)]
    assert [step for step, _ in Tracked(0, "a:0", "complete", None, {}, reports, {}).steps()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("reference", "code", "said"),
    [
        ("tensorbord:x", 2, "did you mean 'tensorboard'"),
        ("tensorboard", 2, "say where, tensorboard:PLACE"),
        ("tensorboard:", 2, "say where, tensorboard:PLACE"),
        ("tensorboard:mine.py", 5, "--track tensorboard: 'mine.py/a'"),
        ("missing:x", 5, "python -m pip install 'nas-search[missing]'"),
    ],
)
def test_what_cannot_be(say: Say, monkeypatch: pytest.MonkeyPatch, reference: str, code: int, said: str) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(tracking, "TRACKERS", {**tracking.TRACKERS, "missing": "no_such_package:Tracker"})
    found, _, err = say(*SEARCH, "--study", "a", "--trials", "1", "--track", reference)
    assert found == code
    assert said in err
    assert len(err.strip().splitlines()) <= 2


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """A local MLflow server."""
    pytest.importorskip("mlflow.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = f"sqlite:///{folder / 'mlflow.db'}"
    words = ("server", "--backend-store-uri", store, "--port", str(port), "--workers", "1")
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], start_new_session=True)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_mlflow_has_what_the_store_has(say: Say, server: str) -> None:
    from mlflow import MlflowClient

    code, _, err = say(*SEARCH, "--study", "a", "--trials", "4", "--track", f"mlflow:{server}")
    assert code == 0, err
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("a").experiment_id
    client.create_run(experiment, tags={"nas.trial": "99"})  # what a killed process leaves
    client.create_run(experiment)  # somebody else's
    assert say("resume", "a", "--trials", "6", "--track", f"mlflow:{server}")[0] == 0
    trials = stored(say, "a")
    runs = {run.data.tags["nas.trial"]: run for run in client.search_runs([experiment]) if "nas.trial" in run.data.tags}
    assert set(runs) == {str(number) for number in trials}
    for number, trial in trials.items():
        run = runs[str(number)]
        assert run.data.metrics == trial["metrics"]
        assert run.data.params == {name: str(value) for name, value in trial["architecture"].items()}
        assert run.info.status == {"complete": "FINISHED", "failed": "FAILED"}[trial["state"]]
    assert len(client.search_runs([experiment])) == len(trials) + 1


@pytest.mark.slow
def test_wandb_is_told_offline(folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = say(*SEARCH, "--study", "a", "--trials", "2", "--track", "wandb:project")
    assert code == 0, err
    trials = stored(say, "a")
    written = {path.stem.removeprefix("run-") for path in (folder / "wandb").glob("offline-run-*/*.wandb")}
    assert written == {f"a-{number}" for number in trials}
    assert json.loads((folder / "wandb" / "nas-a.json").read_text()) == sorted(trials)
