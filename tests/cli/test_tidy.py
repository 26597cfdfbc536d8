"""`nas rm` and `nas gc`: what is asked for goes, whole; what a resume or another study needs stays."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Context, Report
from nas_core.job import Result
from nas_core.records import RETRAIN, StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.executors.inline import Inline
from studies.jobs.run import Driver
from studies.jobs.stored import WEIGHTS
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.crash.sessions import SEARCH, contents, write_toy
from training.testing.evaluators import on_supernet

Say = Callable[..., tuple[int, str, str]]

# What other studies may use, or what tells of the machine.
SHARED = {"alembic_version", "environments", "contexts", "scores"}


class Keeping:
    """A job of one step that keeps weights."""

    kind, settings, about, steps = RETRAIN, {"recipe_name": "quick"}, {"inputs": None}, 1

    def result(self, workdir: Path) -> Result:
        return Result({WEIGHTS: workdir / "weights.safetensors"})


@pytest.fixture
def toy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = write_toy(folder / "toy")
    monkeypatch.chdir(place)
    return place


def test_a_study_is_removed_and_the_others_stay(say: Say, toy: Path) -> None:
    search = [*SEARCH, "--trials", "8"]
    assert say(*search, "--study", "t", "-s", "strategy.population=5")[0] == 0
    before = contents(toy / "nas.db", durations=True)
    assert say(*search, "--study", "s", "--seed", "5")[0] == 0
    with Store("sqlite:///nas.db") as store:
        weights = store.folder(store.study("s"), store.trial(store.study("s"), 0)) / "weights"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"x" * 3000)
    code, out, err = say("rm", "s")
    assert code == 2
    assert "study 's': 8 trials and trainings, 1 files of 2.9 KiB" in err
    assert "nas rm s --yes" in err
    assert weights.exists()
    code, out, err = say("rm", "s", "--yes")
    assert (code, err) == (0, "")
    assert "removed study 's'" in out
    assert contents(toy / "nas.db", durations=True) == before
    assert not (toy / "nas-files" / "s").exists()
    assert say("verify", "t")[0] == 0
    assert say("rm", "s", "--yes")[0] == 3
    assert say(*search, "--study", "s", "--seed", "5")[0] == 0  # as if it had never been
    for name in ("s", "t"):
        assert say("rm", name, "--yes", "--json")[0] == 0
    left = contents(toy / "nas.db", durations=True)
    assert {name for name, rows in left.items() if rows} <= SHARED
    assert not list((toy / "nas-files").iterdir())


def test_a_bench_is_removed_with_its_searches(say: Say, toy: Path) -> None:
    compare = ["bench", "strategies", "--space", "toy.py:space", "--table", "toy.csv", "--data", "pics", "--jobs", "1"]
    assert say(*compare, "--strategies", "random", "--queries", "4", "--seeds", "1", "--name", "b")[0] == 0
    code, _, err = say("rm", "b/random/0", "--yes")
    assert code == 2
    assert "nas rm b" in err
    assert say("rm", "b", "--yes")[0] == 0
    assert {name for name, rows in contents(toy / "nas.db", durations=True).items() if rows} <= SHARED


def test_what_is_in_use_is_not_removed(say: Say, folder: Path) -> None:
    with Store("sqlite:///nas.db") as store:
        source = store.create_study("source", SPEC, StopAt())
        user = SPEC.model_copy(update={"evaluator": on_supernet("source")})
        store.create_study("user", user, StopAt())
        code, _, err = say("rm", "source", "--yes")
        assert code == 2
        assert "study 'user' searches on the supernet of 'source'" in err
        with store.lock(store.study("user")):
            assert "is being run by another process" in say("rm", "user", "--yes")[2]
        assert say("rm", "user", "--yes")[0] == say("rm", "source", "--yes")[0] == 0
        with pytest.raises(Exception, match="no study 'source'"), store.lock(source):
            pass  # a process that had looked it up before it was removed
    code, _, err = say("rm", "sourc", "--yes")
    assert code == 3


def put(store: Store, study: Any, number: int, state: State, **proposal: Any) -> list[Path]:
    """A trial that has left two generations of checkpoints and half of a file."""
    arch = Architecture("letters", {"a": number})
    run = store.propose(study, number, Proposal(arch, **proposal), arch.key, Verdict(state, values=None))
    assert run
    place = store.folder(study) / f"trial-{number}"
    place.mkdir(parents=True)
    paths = [place / f"checkpoint-{epoch:06d}{ending}" for epoch in (1, 2) for ending in (".json", ".safetensors")]
    for path in paths:
        path.write_bytes(b"x" * 1000)
    return paths


def test_gc_frees_what_no_resume_needs(say: Say, folder: Path) -> None:
    with Store("sqlite:///nas.db") as store:
        study = store.create_study("s", SPEC, StopAt())
        needed = [
            *put(store, study, 0, State.RUNNING),
            *put(store, study, 1, State.WAITING),
            *put(store, study, 2, State.COMPLETE, budget=3.0),  # may be asked to go on
            *put(store, study, 3, State.RUNNING, budget=9.0, continues=2),
        ]
        spare = [
            *put(store, study, 4, State.COMPLETE),
            *put(store, study, 5, State.FAILED),
            *put(store, study, 6, State.COMPLETE, budget=3.0),  # has gone on as 7
        ]
        needed += put(store, study, 7, State.COMPLETE, budget=9.0, continues=6)
        half = store.folder(study) / "trial-0" / "checkpoint-000003.json.tmp"
        picture = store.folder(study) / "trial-4" / "lr-range.svg"
        for path in (half, picture):
            path.write_bytes(b"y" * 24)
        store.write(lambda c: c.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(200000) AS x"))
        store.write(lambda c: c.exec_driver_sql("DROP TABLE filler"))
        assert store.spare_bytes() > 200_000
        code, out, err = say("gc")
        assert code == 0
        assert "checkpoints of finished trainings" in out
        assert "free pages of the database" in out
        assert "nothing is freed" in err
        assert all(path.exists() for path in [*needed, *spare, half])
        with store.lock(study):
            assert "is being run" in say("gc", "--yes")[2]
        assert all(path.exists() for path in [*needed, *spare, half])
        assert store.spare_bytes() == 0
        code, out, _ = say("gc", "--yes", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["freed"] == found["bytes"] == 12_024
    assert [path for path in [*needed, *spare, half, picture] if path.exists()] == [*needed, picture]
    assert say("gc")[2] == "there is nothing to free\n"
    with sqlite3.connect(folder / "nas.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_leaves_no_checkpoints(folder: Path, fails: bool) -> None:
    class Trains(Keeping):
        def evaluate(self, proposal: Proposal, budget: float | None, context: Context) -> Iterator[Report]:
            context.workdir.mkdir(parents=True)
            for name in ("checkpoint-000001.json", "checkpoint-000001.safetensors", "weights.safetensors"):
                (context.workdir / name).write_bytes(b"x")
            yield Report(1, {"val_accuracy": 0.5}, 1.0)
            if fails:
                raise ValueError("too deep")

    with Store("sqlite:///nas.db") as store:
        study = store.create_study("s", SPEC, StopAt())
        arch = Architecture("letters", {"a": 1})
        store.propose(study, 0, Proposal(arch), arch.key, Verdict(State.COMPLETE, None, (0.5,)))
        job = Trains()
        (run,) = Driver(store, study, store.trial(study, 0), job, Inline(job)).run([0])
        assert run.kind == RETRAIN
        assert run.state == (State.FAILED if fails else State.COMPLETE)
        left = [path.name for path in store.folder(study, run).iterdir()]
    assert left == ["weights.safetensors"]


def test_a_training_that_is_complete_has_its_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two commits, it is not complete yet."""

    class Killed(Exception):
        pass

    class Trains(Keeping):
        def evaluate(self, proposal: Proposal, budget: float | None, context: Context) -> Iterator[Report]:
            context.workdir.mkdir(parents=True, exist_ok=True)
            (context.workdir / "weights.safetensors").write_bytes(b"x")
            yield Report(1, {"val_accuracy": 0.5}, 1.0)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with Store("sqlite:///nas.db") as store:
        study = store.create_study("s", SPEC, StopAt())
        arch = Architecture("letters", {"a": 1})
        store.propose(study, 0, Proposal(arch), arch.key, Verdict(State.COMPLETE, None, (0.5,)))
        trial = store.trial(study, 0)
        job = Trains()
        for verb in ("add_artifact", "finish"):
            with monkeypatch.context() as patch:
                patch.setattr(store, verb, killed)
                with pytest.raises(Killed):
                    Driver(store, study, trial, job, Inline(job)).run([0])
            (run,) = store.children(trial, RETRAIN)
            assert run.state == State.RUNNING
        (run,) = Driver(store, study, trial, job, Inline(job)).run([0])
        assert (run.state, len(store.artifacts(run)), len(store.children(trial, RETRAIN))) == (State.COMPLETE, 1, 1)
