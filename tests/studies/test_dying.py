"""Candidates that take their process down: counted in the store, failed after three, and the search goes on."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Budget, Context, Fidelity, Report
from nas_core.records import StopAt
from nas_core.strategy import Proposal, State
from studies.analysis.queries import died_in
from studies.analysis.verify import verify
from studies.executors.choose import candidates, executor
from studies.executors.inline import Inline
from studies.executors.pool import Pool
from studies.executors.where import HERE, Where
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.workdirs import Workdirs
from training.evaluators.table import TableSettings


class Killed(BaseException):
    """Stands for SIGKILL: the test goes on with the database as it was at that moment."""


class Mortal:
    """Five steps each; the candidate `dddd` is the end of its process, after `lives(attempt)` steps of it."""

    def __init__(self, bench: Any, lives: Any) -> None:
        self.bench, self.lives = bench, lives
        self.metrics, self.identity, self.costs = bench.evaluator.metrics, lambda arch: None, bench.evaluator.costs
        self.fidelity, self.deterministic, self.in_process = Fidelity("epoch", 1, 5), True, True
        self.attempt = 0

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        letters = "".join(map(str, proposal.arch.values.values()))
        dies = letters.startswith("dd")
        self.attempt += dies
        for step in range(1, 6):
            if dies and step > self.lives(self.attempt):
                self.snapshot()
                raise Killed
            yield Report(step, {"score": float(step), "other": 0.0, "params": 0.0}, float(step))

    def snapshot(self) -> None:
        with (
            sqlite3.connect(self.bench.folder / f"{self.attempt - 1}.db") as now,
            sqlite3.connect(self.bench.folder / f"{self.attempt}.db") as later,
        ):
            now.backup(later)
        files = self.bench.folder / f"{self.attempt - 1}-files"
        if files.is_dir():
            shutil.copytree(files, self.bench.folder / f"{self.attempt}-files", dirs_exist_ok=True)


def search(bench: Any, lives: Any) -> tuple[Any, Any]:
    """A search that is killed and resumed until it ends; its runs, and how many processes that took."""
    evaluator = Mortal(bench, lives)
    for process in range(20):
        with bench.store(str(process)) as store:
            study = store.find_study("s") or bench.study(store, strategy="regularized-evolution", seed=3)
            parts = bench.parts(study.spec, evaluator)
            try:
                assert Search(store, study, parts).run(StopAt(trials=40)) == Ending.TRIALS
            except Killed:
                assert bench.store(str(process + 1)).study("s")
                with bench.store(str(process + 1)) as killed:
                    assert died_in(killed, study) is not None
                continue
            runs = list(store.trials(study, metrics=True))
            assert list(verify(store, study, parts)) == []
            assert [run.tries for run in runs] == [0] * len(runs)
            return runs, process + 1
    raise AssertionError("it never ends")


def words(runs: Any) -> list[tuple[str, State]]:
    return [("".join(map(str, run.arch.values.values())), run.state) for run in runs]


def test_a_candidate_that_ends_three_processes_fails_and_the_search_goes_on(bench: Any) -> None:
    runs, processes = search(bench, lambda attempt: 0)
    dead = [run for run in runs if run.arch.values["edge0"] == run.arch.values["edge1"] == "d"]
    assert dead
    for run in dead:
        if run.state == State.FAILED:
            assert run.verdict.reason == "worker-died: 3 processes ended in this candidate without a report of it"
            assert run.attempt == 3
    failed = [run for run in runs if run.state == State.FAILED]
    assert processes == 1 + 3 * len(failed)
    assert {run.number for run in failed} <= {run.number for run in dead}
    assert sum(run.state == State.COMPLETE for run in runs) == 40 - len(failed)


def test_a_candidate_that_gets_on_between_kills_is_not_its_own_fault(bench: Any) -> None:
    runs, processes = search(bench, lambda attempt: attempt % 6)
    assert processes >= 5
    assert State.FAILED not in {run.state for run in runs}


def test_steps_reported_again_are_no_progress(bench: Any) -> None:
    runs, _ = search(bench, lambda attempt: 2)
    failed = [run for run in runs if run.state == State.FAILED]
    assert {run.attempt for run in failed} == {3}
    assert {run.metrics["score"] for run in failed} == {2.0}


def test_a_candidate_that_ends_processes_when_its_costs_are_counted(bench: Any) -> None:
    evaluator = Mortal(bench, lambda attempt: 5)
    alive = evaluator.costs

    def costs(arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        if "".join(map(str, arch.values.values())).startswith("dd"):
            evaluator.attempt += 1
            evaluator.snapshot()
            raise Killed
        return alive(arch, names)

    evaluator.costs = costs
    for process in range(20):
        with bench.store(str(process)) as store:
            study = store.find_study("s") or bench.study(store, constraints=("params<=1000",), seed=3)
            try:
                assert Search(store, study, bench.parts(study.spec, evaluator)).run(StopAt(trials=30)) == Ending.TRIALS
            except Killed:
                continue
            failed = [run for run in store.trials(study) if run.state == State.FAILED]
            assert failed
            assert process == 3 * len(failed)
            assert {run.verdict.reason for run in failed} == {
                "worker-died: 3 processes ended in counting the costs of this candidate without a report of it"
            }
            assert not list(bench.folder.glob(f"{process}-files/s/judging"))
            return
    raise AssertionError("it never ends")


def test_files_of_a_trial_that_was_finished_and_not_told_go(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process was killed after it had committed the result, before it removed the files."""

    class Writing(Mortal):
        def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
            context.workdir.mkdir(parents=True, exist_ok=True)
            (context.workdir / "checkpoint").touch()
            yield from super().evaluate(proposal, budget, context)

    evaluator = Writing(bench, lambda attempt: 5)
    with bench.store() as store, monkeypatch.context() as patch:
        study = bench.study(store)
        patch.setattr(Workdirs, "release", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            Search(store, study, bench.parts(study.spec, evaluator)).run(StopAt(trials=3))
        (run,) = store.trials(study)
        assert (run.finished, run.told) == (True, None)
        assert list(store.folder(study).glob("trial-*/checkpoint"))
    with bench.store() as store:
        assert Search(store, study, bench.parts(study.spec, evaluator)).run(StopAt(trials=3)) == Ending.TRIALS
        assert list(store.folder(study).glob("trial-*")) == []


def test_an_orderly_stop_does_not_count(bench: Any) -> None:
    class Stop(Exception):
        pass

    with bench.store() as store:
        study = bench.study(store)
        for _ in range(5):
            asked = iter((False, False))

            def stopping(asked: Iterator[bool] = asked) -> bool:
                for answer in asked:
                    return answer
                raise Stop

            with pytest.raises(Stop):
                Search(store, study, bench.parts(study.spec), stopping=stopping).run(StopAt(trials=3))
            assert [run.tries for run in store.trials(study)] == [0]
        assert died_in(store, study) is None


def test_a_study_whose_process_died_gets_processes_of_its_own(bench: Any) -> None:
    with bench.store() as store:
        study = bench.study(store)
        parts = bench.parts(study.spec)
        assert isinstance(executor(candidates(store, study, parts), HERE), Inline)
        apart = candidates(store, study, parts, apart=True)
        assert isinstance(executor(apart, HERE), Pool)
        assert isinstance(executor(apart, Where(executor="inline")), Inline)
        spec = study.spec.model_copy(update={"evaluator": TableSettings(table="none.csv", data="none")})
        table = candidates(store, replace(study, spec=spec), parts, apart=True)
        assert isinstance(executor(table, HERE), Inline)
        assert isinstance(executor(table, Where(executor="processes")), Pool)
