"""Pruners: their rules on curves made by hand, and the loop that stores what they decide."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from nas_core.evaluation import Budget, Context, Fidelity, Report
from nas_core.records import Run, StopAt
from nas_core.strategy import Proposal, State
from strategies.multi_fidelity.early_stopping import Median, Percentile, Threshold
from studies.analysis.verify import verify
from studies.events import Event, Reported
from studies.search.budget import SpentBudget
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.trial import Told

Curve = list[tuple[float, float]]


def curve(*values: float) -> Curve:
    return [(float(step), value) for step, value in enumerate(values, 1)]


OTHERS = [curve(0.1, 0.2, 0.3), [], curve(0.2, 0.4, 0.6), curve(0.3, 0.6, 0.9)]  # medians .2 .4 .6


@pytest.mark.parametrize(
    ("own", "stopped"),
    [
        (curve(0.1), False),  # warming up
        (curve(0.1, 0.39), True),
        (curve(0.1, 0.41), False),
        (curve(0.5, 0.1), False),  # its best counts
        (curve(0.1, 0.5, 0.55), True),
    ],
)
def test_median(own: Curve, stopped: bool) -> None:
    assert Median(Median.Config(startup_trials=3)).prune(own, OTHERS) is stopped
    assert not Median(Median.Config(startup_trials=4)).prune(own, OTHERS)


def test_percentile() -> None:
    others = [curve(0.0, value / 100) for value in range(1, 101)]
    best = Percentile(Percentile.Config(percentile=20.0))
    assert best.prune(curve(0.0, 0.80), others)
    assert not best.prune(curve(0.0, 0.82), others)


def test_threshold() -> None:
    threshold = Threshold(Threshold.Config(lower=0.5))
    assert threshold.prune(curve(0.1, 0.4), [])
    assert not threshold.prune(curve(0.1, 0.6), [])


def test_optuna_logs_nothing() -> None:
    log, logger, said = logging.Handler(), logging.getLogger("optuna"), list[str]()
    log.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(log)
    try:
        Median(Median.Config(startup_trials=0)).prune(curve(0.1, 0.2), OTHERS)
    finally:
        logger.removeHandler(log)
    assert said == []


class Curves:
    """Straight lines over four steps; the slope is the number of the letter a."""

    fidelity = Fidelity("epoch", 1, 4, continues=True)

    def __init__(self, inner: Any) -> None:
        self.metrics, self.deterministic, self.in_process = inner.metrics, True, True
        self.identity, self.costs = inner.identity, inner.costs
        self.steps = 0

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        slope = list(proposal.arch.values.values())[:3].count("a") + (context.seed % 100) / 1000
        for step in range(1, 5):
            self.steps += 1
            yield Report(step, {"score": slope * step, "other": 1.0}, float(step))


def search(bench: Any, name: str, lag: int, stop_every: int | None = None, trials: int = 24) -> tuple[list[Run], int]:
    evaluator, ending = Curves(bench.evaluator), None
    pruner = Median(Median.Config(startup_trials=4))
    while ending not in (Ending.TRIALS,):
        with bench.store(name) as store:
            study = store.find_study("s") or bench.study(store, lag=lag)
            parts = replace(bench.parts(study.spec, evaluator), early_stop=pruner)

            class Count:
                left = stop_every

                def __call__(self, event: Event) -> None:
                    if isinstance(event, Reported) and self.left is not None:
                        self.left -= 1

            count = Count()
            loop = Search(store, study, parts, listener=count, stopping=lambda count=count: (count.left or 1) < 1)
            ending = loop.run(StopAt(trials=trials))
            assert list(verify(store, study, parts)) == []
            runs = list(store.trials(study, metrics=True))
            steps = [[report.step for report in store.curve(run)] for run in runs]
    for run, seen in zip(runs, steps, strict=True):
        if run.state == State.PRUNED:
            assert seen == list(range(1, len(seen) + 1))
            assert 2 <= len(seen) < 4
            assert run.verdict.reason == f"pruned: at {len(seen)}"
            assert run.metrics["score"] == run.verdict.values[0]  # type: ignore[index]
        elif run.state == State.COMPLETE:
            assert seen == [1, 2, 3, 4]
    return [replace(run, attempt=0, started=None, ended=None) for run in runs], loop.spent.total


@pytest.mark.parametrize("lag", [1, 3])
def test_pruned_trials_in_the_loop(bench: Any, lag: int) -> None:
    runs, spent = search(bench, f"whole{lag}", lag)
    states = [run.state for run in runs]
    assert states.count(State.PRUNED) >= 5
    assert State.PRUNED not in states[: 4 + lag - 1]
    full, pruned = states.count(State.COMPLETE), [run for run in runs if run.state == State.PRUNED]
    assert spent == full + sum(int((run.verdict.reason or "").split()[-1]) / 4 for run in pruned)
    best = max(run.verdict.values[0] for run in runs if run.verdict.values)
    assert next(run.state for run in runs if run.verdict.values and run.verdict.values[0] == best) == State.COMPLETE
    stopped, again = search(bench, f"stopped{lag}", lag, stop_every=7)
    assert (stopped, again) == (runs, spent)


class Patient(Curves):
    """Ends by itself after one to four steps, by the number of the letter a."""

    ends_early = True

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        last = 1 + list(proposal.arch.values.values())[:3].count("a")
        yield from (report for report in super().evaluate(proposal, budget, context) if report.step <= last)


@pytest.mark.parametrize("stop_every", [None, 5])
def test_a_training_that_ends_by_itself_pays_for_its_steps(bench: Any, stop_every: int | None) -> None:
    ending = None
    with bench.store("s") as store:
        study = bench.study(store, lag=1)
        while ending != Ending.TRIALS:
            seen: list[Report] = []

            def count(event: Event, seen: list[Report] = seen) -> None:
                if isinstance(event, Reported):
                    seen.append(event.report)

            def stopping(seen: list[Report] = seen) -> bool:
                return stop_every is not None and len(seen) >= stop_every

            parts = bench.parts(study.spec, Patient(bench.evaluator))
            loop = Search(store, study, parts, listener=count, stopping=stopping)
            ending = loop.run(StopAt(trials=12))
        runs = list(store.trials(study, metrics=True))
        steps = [[report.step for report in store.curve(run)] for run in runs if run.state == State.COMPLETE]
        assert list(verify(store, study, parts)) == []
        replayed = Search(store, study, bench.parts(study.spec, Patient(bench.evaluator))).spent.total
    assert len({len(curve) for curve in steps}) > 1
    assert loop.spent.total == replayed == sum(len(curve) / 4 for curve in steps)


def test_what_continues_a_training_that_has_ended_pays_nothing() -> None:
    class Parts:
        evaluator = Curves
        budget = None

    spent = SpentBudget(Parts())  # type: ignore[arg-type]
    spent.learn(Told(0, "a", "a", 2.0, None, State.COMPLETE, 1.0, None, 1.0, False, None))
    assert spent.total == 0.25
    spent.learn(Told(1, "a", "a", 4.0, 0, State.COMPLETE, 1.0, None, 1.0, False, None))
    assert spent.total == 0.25
