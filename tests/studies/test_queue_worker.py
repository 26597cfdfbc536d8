"""The worker of a queue, in the process of the test: what is heard of it, what it gives back, where it refuses."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_core import distribution
from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NasError, NotFoundError, UsageError
from nas_core.evaluation import Budget, Context, Report
from nas_core.records import Run, StopAt
from nas_core.strategy import Proposal, State
from studies.executors import Begun, Died, Ended, Executor, Halted, Job, Reported, queue_worker
from studies.executors.inline import Inline
from studies.executors.pool import Pool
from studies.executors.queue_worker import QueueWorker, local
from studies.executors.queued import MARK, Queued
from studies.executors.worker import Candidates
from studies.records import Study
from studies.search.loop import Search
from studies.store.queue import Queue
from studies.store.store import Store
from tests.studies.conftest import Bench
from tests.studies.test_queue import run_out

pytestmark = pytest.mark.filterwarnings("ignore:study 's' waits for workers")
Step = Callable[[int, Context], None]


@dataclass
class Steps:
    """Evaluates in four steps and keeps in its folder how far it has come; `at` is called before each."""

    at: Step = lambda step, context: None
    begun: list[int] = field(default_factory=list)  # the step that each evaluation has begun with

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        kept = context.workdir / "step"
        done = int(kept.read_text()) if kept.is_file() else 0
        self.begun.append(done + 1)
        for step in range(1, done + 1):
            yield Report(step, {"score": float(step)}, step)
        for step in range(done + 1, 5):
            self.at(step, context)
            context.workdir.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(step))
            yield Report(step, {"score": float(step)}, step)


class Place:
    """A study, its driver's executor, and workers on what `Steps` does."""

    def __init__(self, store: Store, study: Study) -> None:
        self.store, self.study, self.queue = store, study, Queue(store, study)
        self.said: list[str] = []
        self.driver = Queued(store, study, Candidates(study.spec), 4, 60.0)

    def submit(self, number: int) -> None:
        folder = self.store.folder(self.study) / f"trial-{number}"
        arch = Architecture("edges", {f"edge{n}": "a" for n in range(4)})
        self.driver.submit(Job(number, Proposal(arch), None, 4.0, 7, folder, 0))

    def work(self, work: Any, *, name: str = "w", idle: float = 0.02, **options: Any) -> QueueWorker:
        """A worker that has done all there was to do."""
        made: Executor = work if isinstance(work, Pool) else Inline(work)
        worker = QueueWorker(
            self.store, self.study, lambda of: made, idle=idle, name=name, say=self.said.append, **options
        )
        worker.run()
        return worker

    def heard(self, count: int) -> list[Any]:
        return [self.driver.next(lambda: False) for _ in range(count)]

    def kept(self, number: int = 0) -> str:
        return (self.store.folder(self.study) / f"trial-{number}" / "step").read_text()

    def left(self) -> list[str]:
        folder = self.store.folder(self.study)
        return sorted(str(path.relative_to(folder)) for path in folder.glob("trial-*/**/*"))


@pytest.fixture
def place(bench: Bench) -> Iterator[Place]:
    with bench.store() as store:
        yield Place(store, bench.study(store))


def test_an_evaluation_is_reported_and_its_files_are_handed_in(place: Place) -> None:
    place.submit(0)
    place.submit(1)
    worker = place.work(Steps())
    assert worker.done == 2
    heard = place.heard(12)
    for number in (0, 1):
        mine = [event for event in heard if event.number == number]
        assert [type(event) for event in mine] == [Begun, *[Reported] * 4, Ended]
        assert [event.report.step for event in mine[1:5]] == [1, 2, 3, 4]
        assert place.kept(number) == "4"
    assert place.left() == ["trial-0/step", "trial-1/step"]
    assert place.said == ["s/trial-0: begun", "s/trial-0: done", "s/trial-1: begun", "s/trial-1: done"]


def test_a_worker_that_was_thought_dead_is_not_heard_and_another_goes_on(place: Place) -> None:
    """As a process that is stopped in the middle of a step and woken after its lease."""
    other = Steps()

    def paused(step: int, context: Context) -> None:
        if step == 3 and not other.begun:
            run_out(place.store)
            heard = place.heard(4)
            assert [type(event) for event in heard] == [Begun, Reported, Reported, Died]
            place.submit(0)
            place.work(other, name="other")

    late = place.work(Steps(paused)) if place.submit(0) is None else None
    assert late is not None
    assert late.done == 0
    assert other.begun == [3]
    assert "s/trial-0: not wanted any more" in place.said
    heard = place.heard(6)
    assert [type(event) for event in heard] == [Begun, *[Reported] * 4, Ended]
    assert place.kept() == "4"
    assert place.left() == ["trial-0/step"]


def test_a_late_worker_leaves_what_the_next_one_goes_on_from(place: Place) -> None:
    """It wakes before another one has begun."""

    def paused(step: int, context: Context) -> None:
        if step == 3:
            run_out(place.store)
            assert isinstance(place.heard(4)[3], Died)
            place.submit(0)

    other = Steps()
    place.submit(0)
    place.work(Steps(paused), stopping=lambda: len(place.said) == 2)
    assert place.said == ["s/trial-0: begun", "s/trial-0: not wanted any more"]
    place.work(other, name="other")
    assert other.begun[0] >= 3
    assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]


def test_a_late_worker_cleans_up_after_a_run_that_is_over(place: Place) -> None:
    def paused(step: int, context: Context) -> None:
        if step == 2:
            place.driver.drop(0)
            shutil.rmtree(context.workdir.parent)  # as the search does with a candidate that is not trained on

    place.submit(0)
    place.work(Steps(paused))
    assert not (place.store.folder(place.study) / "trial-0").exists()
    assert not place.queue.is_wanted("s/trial-0")


def test_a_worker_that_is_stopped_gives_its_candidate_back(place: Place) -> None:
    stop: list[bool] = []
    place.submit(0)
    first, second = Steps(lambda step, context: stop.append(True) if step == 2 else None), Steps()
    assert place.work(first, stopping=lambda: bool(stop)).done == 0
    assert place.said[-1] == "s/trial-0: given back"
    assert place.work(second, name="v").done == 1
    assert second.begun == [3]
    assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]


def test_a_worker_that_is_interrupted_at_once_gives_its_candidate_back(place: Place) -> None:
    def interrupted(step: int, context: Context) -> None:
        if step == 2:
            raise KeyboardInterrupt

    place.submit(0)
    with pytest.raises(KeyboardInterrupt):
        place.work(Steps(interrupted))
    assert place.work(Steps(), name="v").done == 1


def test_a_driver_that_stops_is_obeyed(place: Place) -> None:
    place.submit(0)
    place.submit(1)

    def stopped(step: int, context: Context) -> None:
        if step == 2:
            heard = [place.driver.next(lambda: True) for _ in range(3)]
            assert [type(event) for event in heard if event.number == 0] == [Begun, Reported]
            assert [event for event in heard if event.number == 1] == [Halted(1)]

    steps = Steps(stopped)
    assert place.work(steps).done == 0
    assert steps.begun == [1]
    heard = [place.driver.next(lambda: True) for _ in range(2)]
    assert [type(event) for event in heard] == [Reported, Halted]
    assert place.kept() == "2"


def test_what_was_asked_for_and_cannot_be_ends_the_search_not_the_worker(place: Place) -> None:
    def refused(step: int, context: Context) -> None:
        raise UsageError("that cannot be")

    place.submit(0)
    assert place.work(Steps(refused)).done == 0
    with pytest.raises(UsageError, match="that cannot be"):
        place.heard(2)


def test_a_machine_that_stands_in_the_way_costs_an_attempt_and_the_worker(place: Place) -> None:
    def full(step: int, context: Context) -> None:
        if step == 2:
            raise MachineError(f"disk full: cannot write '{context.workdir / 'x'}'")

    place.submit(0)
    with pytest.raises(MachineError, match="disk full"):
        place.work(Steps(full))
    assert place.heard(3)[2] == Died(0, "disk full: cannot write 'x'")


def test_a_machine_that_cannot_begin_costs_nothing(place: Place) -> None:
    class Broken:
        slots, apart = 1, True

        def __init__(self, error: NasError) -> None:
            self.error = error

        def submit(self, job: Job) -> None: ...
        def drop(self, number: int) -> None: ...
        def close(self) -> None: ...
        def next(self, stopping: Callable[[], bool]) -> Any:
            raise self.error

    place.submit(0)
    for error, hint in (
        (NotFoundError("there is no file 'space.py'"), True),
        (UsageError("the data has changed"), True),
        (MachineError("there is no CUDA device"), False),
    ):
        made: Any = Broken(error)
        worker = QueueWorker(place.store, place.study, lambda of, made=made: made, idle=0.02)  # type: ignore[misc]
        with pytest.raises(type(error), match=str(error)) as caught:
            worker.run()
        assert ("copy them here" in str(caught.value)) == hint
        assert len(str(caught.value).splitlines()) == 1 + hint
    assert place.work(Steps()).done == 1
    assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]


def test_a_database_that_is_away_for_a_while_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_worker, "_AGAIN", 0.01)
    failures = {"say": 3, "renew": 1, "claim": 2, "driver": 1}

    def flaky(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def verb(*given: Any, **named: Any) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise MachineError("cannot reach the database")
            return real(*given, **named)

        return verb

    for name in failures:
        monkeypatch.setattr(Queue, name, flaky(name, getattr(Queue, name)))
    place.submit(0)
    assert place.work(Steps(), idle=5.0, stopping=Once(place)).done == 1
    assert set(failures.values()) == {0}
    assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]


class Once:
    """True once a candidate is done, so that a patient worker ends."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self) -> bool:
        return "s/trial-0: done" in self.place.said


def test_a_server_that_closes_all_connections_is_reached_again(
    bench: Bench, postgresql: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is restarted does."""
    monkeypatch.setattr(queue_worker, "_AGAIN", 0.01)
    url = postgresql()
    with Store(url, tmp_path) as store, Store(url, tmp_path) as others:
        study = bench.study(others)

        def closed(step: int, context: Context) -> None:
            if step in (1, 3):
                everybody = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                others.read(sa.text(f"{everybody} AND datname = current_database()"))

        place = Place(others, study)
        place.submit(0)
        place.store = store
        assert place.work(Steps(closed), idle=5.0, stopping=Once(place)).done == 1
        assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]


def test_a_database_that_stays_away_ends_a_worker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*given: Any, **named: Any) -> Any:
        raise MachineError("cannot reach the database")

    monkeypatch.setattr(queue_worker, "_AGAIN", 0.01)
    monkeypatch.setattr(Queue, "renew", away)
    monkeypatch.setattr(Queue, "say", away)
    place.submit(0)
    with pytest.raises(MachineError, match="cannot reach the database"):
        place.work(Steps(), idle=0.05)


def test_a_last_word_that_was_heard_counts_even_if_the_answer_was_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = Queue.say, [True]

    def say(self: Queue, attempt: int, worker: str, body: Mapping[str, Any], *, last: bool = False) -> bool | None:
        answer = real(self, attempt, worker, body, last=last)
        if last and lost:
            lost.clear()
            raise MachineError("the connection was closed")
        return answer

    monkeypatch.setattr(queue_worker, "_AGAIN", 0.01)
    monkeypatch.setattr(Queue, "say", say)
    place.submit(0)
    assert place.work(Steps(), idle=5.0, stopping=Once(place)).done == 1
    assert [type(event) for event in place.heard(6)] == [Begun, *[Reported] * 4, Ended]
    assert place.kept() == "4"


def test_another_version_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.submit(0)
    monkeypatch.setattr(distribution, "version", lambda: "99.0")
    with pytest.raises(MachineError, match=r"is nas .*, and this is 99\.0; install the same version") as caught:
        place.work(Steps())
    assert len(str(caught.value).splitlines()) == 1


def test_other_files_are_refused(place: Place, tmp_path: Path) -> None:
    place.submit(0)
    (place.store.folder(place.study) / MARK).write_text("of another study")
    with pytest.raises(MachineError, match="is not the folder that the driver of study 's'"):
        place.work(Steps())
    with Store(place.store.url, tmp_path / "elsewhere") as elsewhere:
        worker = QueueWorker(elsewhere, place.study, lambda of: Inline(Steps()), idle=0.02)
        with pytest.raises(MachineError, match="name it by --files"):
            worker.run()
    assert place.queue.attempts() == []


def test_who_drives_is_told_once(place: Place) -> None:
    place.work(Steps(), idle=0.3)
    assert place.said == []
    place.driver.close()
    place.work(Steps(), idle=0.3)
    assert place.said == ["no driver wants anything of study 's' now: nas resume s --executor queue"]


def test_more_workers_than_lag_are_told(place: Place) -> None:
    def another(step: int, context: Context) -> None:
        if step == 1:
            place.work(Steps(), name="another", idle=0.1)

    assert place.study.spec.lag == 1
    place.submit(0)
    place.work(Steps(another))
    told = "other workers have as many candidates of study 's' as its lag allows (1); this one waits"
    assert place.said == ["s/trial-0: begun", told, "s/trial-0: done"]


def test_a_worker_without_patience_looks_once(place: Place) -> None:
    place.submit(0)
    place.submit(1)
    assert place.work(Steps(), idle=0).done == 2


def test_a_device_of_another_type_is_refused(place: Place, bench: Bench) -> None:
    work = {"kind": "retrain", "settings": {"device": "cuda", "data": "digits"}}
    assert isinstance(local(place.store, place.study, "cuda:1")(work), Pool)
    for device, of in (("cpu", work), ("cpu", {})):
        with pytest.raises(UsageError, match=f"--device {device}: study 's' works on (cuda|no device)"):
            local(place.store, place.study, device)(of)


def plain(runs: Iterator[Run]) -> list[str]:
    """Without times, frames of this file, and how often a trial was begun; as text, since a number may be NaN."""
    return [
        repr(replace(run, attempt=0, started=None, ended=None, verdict=replace(run.verdict, traceback=None)))
        for run in runs
    ]


def test_a_study_by_workers_is_the_one_that_is_made_here(bench: Bench) -> None:
    """Also with a worker that loses every third candidate that it takes."""
    with bench.store() as store, bench.store("other") as other:
        study, alone = bench.study(store, lag=4, seed=1), bench.study(other, lag=4, seed=1)
        ended = threading.Event()

        def work(name: str) -> None:
            with bench.store() as own:
                made = Inline(Flaky(bench.evaluator) if name == "flaky" else bench.evaluator)
                worker = QueueWorker(own, study, lambda of: made, idle=60, stopping=ended.is_set, name=name)
                while not ended.is_set():
                    try:
                        worker.run()
                    except MachineError:
                        continue

        threads = [threading.Thread(target=work, args=(name,)) for name in ("flaky", "sound")]
        for thread in threads:
            thread.start()
        try:
            queued = Queued(store, study, Candidates(study.spec), study.spec.lag, 30.0)
            Search(store, study, bench.parts(study.spec), executor=queued).run(StopAt(trials=20))
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        Search(other, alone, bench.parts(alone.spec)).run(StopAt(trials=20))
        runs = list(store.trials(study))
        assert plain(store.trials(study, metrics=True)) == plain(other.trials(alone, metrics=True))
        assert sum(run.attempt for run in runs) > sum(run.state != State.REUSED for run in runs)
        assert store.query("SELECT * FROM attempts")[1] == []
        assert [path.name for path in store.folder(study).iterdir()] in (["lock", MARK], [MARK])


class Flaky:
    """A machine that breaks down in every third candidate."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.often = inner, 0

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        self.often += 1
        for report in self.inner.evaluate(proposal, budget, context):
            yield report
            if self.often % 3 == 1:
                raise MachineError("broken")
