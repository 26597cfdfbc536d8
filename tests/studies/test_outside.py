"""A search whose candidates are evaluated outside of it: `advance`, `settle`, `close`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from nas_core.evaluation import Context, Report
from nas_core.failures import Failure
from nas_core.records import Run, StopAt
from nas_core.strategy import State
from studies.analysis.verify import verify
from studies.executors import Event, Job
from studies.search.endings import Ending
from studies.search.loop import Search

TRIALS = 12
SMALL = {"population": 4, "sample": 2}


class Desk:
    """An executor that only takes down what is to be evaluated."""

    apart = True

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def next(self, stopping: Callable[[], bool]) -> Event:
        raise AssertionError("nobody waits here")

    def drop(self, number: int) -> None:
        self.jobs = [job for job in self.jobs if job.number != number]

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None: ...


def plain(run: Run) -> tuple[Any, ...]:
    verdict = run.verdict
    reason = None if verdict.reason is None else re.sub("^.*: ", "", verdict.reason)
    return run.number, run.proposal, verdict.state, reason, verdict.values, run.metrics, run.told, run.asked_after


def evaluated(bench: Any, job: Job) -> tuple[list[Report], Failure | None]:
    reports: list[Report] = []
    try:
        reports.extend(bench.evaluator.evaluate(job.proposal, job.budget, Context(job.seed, job.workdir)))
    except Exception as error:
        return reports, Failure(f"mine: {error}")
    return reports, None


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("every", [1, 2, 100])
def test_it_is_the_same_study(bench: Any, lag: int, every: int) -> None:
    """However often the process that drives it is another one."""
    with bench.store("inside") as store:
        study = bench.study(store, strategy="regularized-evolution", lag=lag, strategy_config=SMALL)
        assert Search(store, study, bench.parts(study.spec)).run(StopAt(trials=TRIALS)) == Ending.TRIALS
        wanted = [plain(run) for run in store.trials(study, metrics=True)]
    with bench.store("outside") as store:
        study = bench.study(store, strategy="regularized-evolution", lag=lag, strategy_config=SMALL)
        ending = None
        while ending is None:
            desk = Desk(lag)
            search = Search(store, study, bench.parts(study.spec), executor=desk)
            for _ in range(every):
                ending = search.advance(StopAt(trials=TRIALS))
                if ending is not None and not desk.jobs:
                    break
                ending = None
                job = desk.jobs.pop()
                settled = search.settle(job.number, *evaluated(bench, job))
                assert settled.finished
            search.close()
        assert ending == Ending.TRIALS
        assert [plain(run) for run in store.trials(study, metrics=True)] == wanted
        assert list(verify(store, study, bench.parts(study.spec))) == []


def test_a_trial_is_settled_by_a_process_that_never_gave_it_out(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    desk = Desk(1)
    first = Search(store, study, bench.parts(study.spec), executor=desk)
    assert first.advance(StopAt(trials=1)) is None
    first.close()
    assert [run.state for run in store.trials(study)] == [State.RUNNING]
    second = Search(store, study, bench.parts(study.spec), executor=Desk(1))
    assert second.settle(0, [Report(2, {"score": 1.0})]).verdict.values == (1.0,)
    with pytest.raises(KeyError):
        second.settle(7, [])
    assert second.advance(StopAt(trials=1)) == Ending.TRIALS
    second.close()
    assert [(run.state, run.told, run.metrics) for run in store.trials(study, metrics=True)] == [
        (State.COMPLETE, 0, {"score": 1.0})
    ]
