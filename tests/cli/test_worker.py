"""`nas worker`: where it refuses, what it says, and trainings that it does for `nas train`."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from nas_core.records import RETRAIN
from nas_core.strategy import Proposal, State
from studies.executors import Job
from studies.executors.queue_worker import QueueWorker, local
from studies.executors.queued import Queued
from studies.executors.worker import Candidates
from studies.search import start
from studies.setup.config import SearchConfig
from studies.store.queue import Queue
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1", "--epochs", "1"]
SCHEMAS = Path(__file__).parents[1] / "studies" / "schemas"
ASKED = {
    "study": "s", "data": "digits", "split": {"limit": 200}, "size": "channels=2,cells=1", "epochs": 1, "trials": 2,
    "threads": 1, "device": "cpu",
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:study '.' waits for workers")


def made(**asked: Any) -> None:
    """A study that nobody has searched yet."""
    with Store("sqlite:///nas.db") as store:
        start.start(store, start.planned(SearchConfig(**{**ASKED, **asked})))


@contextmanager
def wanted() -> Iterator[Queue]:
    """A candidate of that study waits for a worker."""
    with Store("sqlite:///nas.db") as store:
        study = store.study("s")
        parts = start.resume(store, "s").objects
        driver = Queued(store, study, Candidates(study.spec), 1)
        arch = parts.make_strategy().ask(0, []).arch
        driver.submit(Job(0, Proposal(arch), None, 1.0, 7, store.folder(study) / "trial-0", 0))
        yield Queue(store, study)


def test_what_is_not_there_is_said(folder: Path, say: Say) -> None:
    code, out, err = say("worker", "s")
    assert (code, out, "there is no database 'nas.db'" in err) == (3, "", True)
    made()
    code, _, err = say("worker", "t")
    assert (code, "no study 't'" in err) == (3, True)
    unreachable = "postgresql+psycopg://nas:secret@127.0.0.1:1/studies"
    code, _, err = say("worker", "s", "--db", unreachable)
    assert (code, "cannot reach the database" in err, "secret" in err) == (5, True, False)
    assert len(err.splitlines()) <= 2


def test_a_study_whose_results_are_told_has_no_work(folder: Path, say: Say) -> None:
    assert say("ask", "t", "--objective", "val_accuracy:max", "--data", "digits")[0] == 0
    code, _, err = say("worker", "t")
    assert (code, "are told to it by nas tell" in err) == (2, True)


def test_a_database_of_another_schema_is_left_alone(folder: Path, say: Say) -> None:
    with sqlite3.connect("nas.db") as connection:
        connection.executescript((SCHEMAS / "0007.sql").read_text())
    connection.close()
    before = Path("nas.db").read_bytes()
    code, _, err = say("worker", "one")
    assert (code, "has schema 0007" in err, "upgrades nothing" in err) == (5, True, True)
    assert len(err.splitlines()) == 1
    assert Path("nas.db").read_bytes() == before


def test_a_study_that_nobody_drives_is_said(folder: Path, say: Say) -> None:
    made()
    code, out, err = say("worker", "s", "--idle", "0.1", "--json")
    assert code == 0
    assert err == "nas: no driver wants anything of study 's' now: nas resume s --executor queue\n"
    found = json.loads(out)
    assert (found["study"], found["evaluated"]) == ("s", 0)
    code, out, _ = say("worker", "s", "--idle", "0.1")
    assert out.startswith("s: 0 evaluated by ")


@pytest.mark.usefixtures("forked_workers")
def test_a_machine_without_the_files_says_which_and_harms_nothing(folder: Path, say: Say) -> None:
    space = folder / "my_space.py"
    space.write_text((Path(__file__).parents[2] / "examples" / "my_space.py").read_text())
    made(space="my_space.py:space", size="search")
    with wanted() as queue:
        space.rename(folder / "elsewhere.py")
        code, out, err = say("worker", "s", "--idle", "30")
        assert (code, out) == (3, "")
        assert "my_space.py" in err.splitlines()[0]
        assert err.splitlines()[1].startswith("A worker needs the files and the data of its study: copy them here")
        assert queue.attempts() == []
        code, _, err = say("worker", "s", "--idle", "30", "--device", "cuda:0")
        assert (code, "study 's' works on cpu" in err) == (2, True)
        space.write_text((folder / "elsewhere.py").read_text() + "\n# changed\n")
        code, _, err = say("worker", "s", "--idle", "30")
        assert (code, "has changed since the study was made" in err) == (2, True)
        (folder / "elsewhere.py").rename(space)
        code, out, err = say("worker", "s", "--idle", "0.5")
        assert (code, out[:12]) == (0, "s: 1 evaluat"), err


def test_who_works_is_shown(folder: Path, say: Say) -> None:
    made()
    with wanted() as queue:
        assert "works on" not in say("show", "s")[1]
        queue.claim("node1:4711")
        assert say("show", "s")[1].splitlines()[-1].split("\t")[:2] == ["node1:4711", "trial-0"]
        (one,) = json.loads(say("show", "s", "--json")[1])["workers"]
        assert (one["worker"], one["run"]) == ("node1:4711", "trial-0")
        assert 0 <= one["silent"] <= one["seconds"] < 60


@pytest.mark.usefixtures("forked_workers")
def test_trainings_by_workers_are_those_that_are_made_here(folder: Path, say: Say) -> None:
    search = ["--study", "a", "--trials", "1", "-s", "split.limit=200", "--threads", "1", *SMALL]
    assert say("search", *search)[0] == 0
    ended = threading.Event()

    def work() -> None:
        with Store("sqlite:///nas.db") as store:
            study = store.study("a")
            QueueWorker(store, study, local(store, study), idle=60, stopping=ended.is_set).run()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        asked = ["train", "a:0", *SMALL, "--seeds", "2", "--json"]
        code, out, err = say(*asked, "--executor", "queue", "--workers", "2")
    finally:
        ended.set()
        worker.join()
    assert code == 0, err
    there = json.loads(out)["runs"]
    here = json.loads(say(*asked, "-s", "lr_end=0")[1])["runs"]  # other settings by name, the same training
    assert [run["metrics"] for run in there] == [run["metrics"] for run in here]
    with Store("sqlite:///nas.db") as store:
        study = store.study("a")
        runs = store.children(store.trial(study, 0), RETRAIN)
        assert [(run.state, run.tries, run.attempt) for run in runs] == [(State.COMPLETE, 0, 1)] * 4
        files = [store.folder(study, run) / "weights.safetensors" for run in runs]
        for one, other in zip(
            map(safetensors.torch.load_file, files[:2]), map(safetensors.torch.load_file, files[2:]), strict=True
        ):
            assert all(bool((one[name] == other[name]).all()) for name in one)
        assert store.query("SELECT id FROM attempts")[1] == []
        assert not list(store.folder(study).rglob("attempt-*"))
