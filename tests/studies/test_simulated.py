"""Asynchronous workers on a simulated clock: outcomes come as the recorded durations end, also after a resume."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import pytest

from nas_core.errors import UsageError
from nas_core.evaluation import Budget, Context, Report
from nas_core.records import Run, StopAt
from nas_core.strategy import Proposal, State
from studies.analysis.verify import verify
from studies.events import Event, Finished
from studies.executors.simulated import Simulated
from studies.search.endings import Ending
from studies.search.loop import Search


class Durations:
    """A table's way: one report with a recorded duration, 1 to 64 seconds by the letters."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.fidelity = None
        self.metrics, self.deterministic, self.in_process = inner.metrics, True, True
        self.identity, self.costs = inner.identity, inner.costs

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        letters = ["abcd".index(str(value)) for value in proposal.arch.values.values()]
        yield Report(1.0, {"score": float(sum(letters)), "other": 0.0}, seconds(letters))


def seconds(letters: list[int]) -> float:
    return 1.0 + letters[0] + 4 * letters[1] + 16 * letters[2]


def search(bench: Any, database: str, stops: list[int], workers: int = 3, trials: int = 20) -> list[Run]:
    """A free search on the clock; the process stops after each of `stops` told trials, and another one resumes."""
    evaluator = Durations(bench.evaluator)
    for stop in [*stops, trials]:
        with bench.store(database) as store:
            changes: dict[str, Any] = {"lag": workers, "ordering": "free", "strategy": "random"}
            study = store.find_study("s") or bench.study(store, **changes)
            parts = bench.parts(study.spec, evaluator)
            told: list[int] = []

            def listener(event: Event, told: list[int] = told) -> None:
                if isinstance(event, Finished):
                    told.append(1)

            loop = Search(
                store, study, parts, listener=listener, executor=Simulated(evaluator, workers),
                stopping=lambda stop=stop, told=told: stop != trials and len(told) >= stop,
            )  # fmt: skip
            ending = loop.run(StopAt(trials=trials))
            assert ending == (Ending.TRIALS if stop == trials else Ending.INTERRUPTED)
            runs = list(store.trials(study, metrics=True))
            assert list(verify(store, study, parts)) == []
    return runs


def order(runs: list[Run]) -> list[int]:
    return [run.number for run in sorted(runs, key=lambda run: run.told or 0)]


def test_outcomes_come_in_the_order_of_a_plain_simulation(bench: Any) -> None:
    runs = search(bench, "a", [])
    busy: list[tuple[float, int]] = []
    clock, expected, waiting = 0.0, [], [run for run in runs if run.state != State.REUSED]
    assert len(waiting) == len(runs), "random search does not repeat itself"
    while waiting or busy:
        while waiting and len(busy) < 3:
            run = waiting.pop(0)
            letters = ["abcd".index(str(value)) for value in run.arch.values.values()]
            heapq.heappush(busy, (clock + seconds(letters), run.number))
        clock, number = heapq.heappop(busy)
        expected.append(number)
    assert order(runs) == expected
    assert expected != sorted(expected)


def test_a_resumed_search_goes_on_at_the_same_time_of_day(bench: Any) -> None:
    whole = search(bench, "whole", [])
    stopped = search(bench, "stopped", [5, 3, 4])
    assert [(run.arch, run.told, run.asked_after) for run in stopped] == [
        (run.arch, run.told, run.asked_after) for run in whole
    ]


def test_without_durations_there_is_no_clock(bench: Any) -> None:
    class Instant(Durations):
        def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
            yield Report(1.0, {"score": 1.0, "other": 0.0}, 0.0)

    with bench.store() as store:
        study = bench.study(store, ordering="free", lag=2)
        evaluator = Instant(bench.evaluator)
        loop = Search(store, study, bench.parts(study.spec, evaluator), executor=Simulated(evaluator, 2))
        with pytest.raises(UsageError, match="needs recorded durations"):
            loop.run(StopAt(trials=4))
