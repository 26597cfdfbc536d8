"""A search whose candidates are evaluated by whoever asks for them: `nas ask` and `nas tell`, `study.ask` and
`study.tell`.

Every call opens the stored study, as a resume does, and leaves it in good order: whatever dies between two calls, the
next one goes on with what is stored. An outcome is told to the strategy by the next `ask`, in the order of the study,
so that its proposals are those of a search that evaluates by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from nas_core.errors import TrialError, UsageError, unknown
from nas_core.evaluation import Report
from nas_core.failures import Failure
from nas_core.records import Run
from nas_core.strategy import State
from studies.environment import environment
from studies.executors import Event, Job
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.start import Opened
from studies.search.trial import Trial
from studies.store.store import Store


class Outside:
    """Evaluates nothing: `jobs` are what others have to evaluate (`studies.executors.Executor`)."""

    apart = True  # no attempt counts: who evaluates may come back as often as they like

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.jobs: dict[int, Job] = {}

    def submit(self, job: Job) -> None:
        self.jobs[job.number] = job

    def next(self, stopping: Callable[[], bool]) -> Event:
        raise NotImplementedError("nothing is evaluated here")

    def drop(self, number: int) -> None:
        self.jobs.pop(number, None)

    def told(self, number: int, asked_after: int, seconds: float) -> None: ...

    def close(self) -> None: ...


def ask(store: Store, opened: Opened) -> tuple[list[Job], Ending | None]:
    """All trials that wait for their result, the oldest first: as many as the study's lag, proposed and stored now
    where they were not; and why there are no more, where there are none to come."""
    outside = Outside(opened.study.spec.lag)
    with _searching(store, opened, outside) as search:
        ending = search.advance(opened.budget)
        return list(outside.jobs.values()), ending


def tell(store: Store, opened: Opened, number: int, metrics: Mapping[str, Any], seconds: float = 0.0) -> Run:
    """Store the result of a trial, which counts its costs too.

    Raises NotFoundError for a trial that is not there, UsageError for one that waits for nothing, a metric that is
    missing, unknown or no number.
    """
    checked = _checked(opened, metrics)
    with _searching(store, opened) as search:
        trial = _waiting(store, opened, search, number)
        target = search.spent.resolved(trial.proposal)[1]
        report = Report(target, {**checked, **_counted(opened, trial)}, seconds)
        search.settle(number, [report])
    return store.trial(opened.study, number)


def fail(store: Store, opened: Opened, number: int, reason: str) -> Run:
    """Store that a trial has failed. Raises as `tell`, and UsageError for no reason."""
    words = " ".join(reason.split())
    if not words:
        raise UsageError(f"say why {opened.study.name}:{number} has failed, in a few words")
    with _searching(store, opened) as search:
        _waiting(store, opened, search, number)
        search.settle(number, [], Failure(f"told: {words}"))
    return store.trial(opened.study, number)


def report(store: Store, opened: Opened, number: int, step: float, metrics: Mapping[str, Any]) -> Run:
    """Store the metrics of a step before the last; the trial may have been stopped early then, and its state says so.
    Raises as `tell`, and UsageError for a step that is none."""
    fidelity = opened.objects.evaluator.fidelity
    if fidelity is None:
        raise UsageError(f"study '{opened.study.name}' has no steps; make one with --epochs")
    checked = _checked(opened, metrics)
    with _searching(store, opened) as search:
        trial = _waiting(store, opened, search, number)
        target = search.spent.resolved(trial.proposal)[1]
        if not fidelity.low <= step < target:
            raise UsageError(
                f"step {step:g}: steps before the last of {opened.study.name}:{number} are {fidelity.low:g} to "
                f"{target - 1:g} {fidelity.unit}; the result at {target:g} is told without a step"
            )
        search.report(number, Report(step, {**checked, **_counted(opened, trial)}))
    return store.trial(opened.study, number)


@contextmanager
def _searching(store: Store, opened: Opened, outside: Outside | None = None) -> Iterator[Search]:
    """The study as this process's. Raises UsageError for one that evaluates by itself."""
    study = opened.study
    if not study.spec.evaluator.facts.told:
        raise UsageError(
            f"study '{study.name}' evaluates by itself (evaluator '{study.spec.evaluator.kind}'): "
            f"nas resume {study.name}"
        )
    with store.lock(study):
        if opened.budget != study.stop_at:
            store.set_stop_at(study, opened.budget)
        facts = store.environment(environment(study.spec))
        search = Search(store, study, opened.objects, environment=facts, executor=outside or Outside(0))
        try:
            yield search
        finally:
            search.close()


def _checked(opened: Opened, metrics: Mapping[str, Any]) -> dict[str, float]:
    objects = opened.objects
    known = [metric.name for metric in objects.evaluator.metrics if not metric.cost]
    costs = [metric.name for metric in objects.evaluator.metrics if metric.cost]
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if name in costs:
            raise UsageError(f"'{name}' is counted here, not told; leave it out")
        if name not in known:
            raise unknown("metric", name, known)
        try:
            found[name] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise UsageError(f"metric '{name}' is {value!r}, which is no finite number; a trial may be told as failed")
    needed = dict.fromkeys([*(one.metric for one in objects.objectives), *(one.metric for one in objects.constraints)])
    missing = [name for name in needed if name in known and name not in found]
    if missing:
        raise UsageError(
            f"metric '{missing[0]}' is missing; the study needs {', '.join(n for n in needed if n in known)}"
        )
    return found


def _waiting(store: Store, opened: Opened, search: Search, number: int) -> Trial:
    """Raises NotFoundError or UsageError for a trial whose result nobody waits for."""
    address = f"{opened.study.name}:{number}"
    trial = search.pending.get(number)
    if trial is None or trial.finished:
        _not_waiting(address, store.trial(opened.study, number))
    if trial.reuses is not None:
        source = search.pending.get(trial.reuses)
        state = store.trial(opened.study, trial.reuses).state if source is None else source.verdict.state
        if state in (State.WAITING, State.RUNNING, State.COMPLETE):
            raise UsageError(
                f"{address} is the same candidate as {opened.study.name}:{trial.reuses}, whose result it takes; "
                "tell that one"
            )
    return trial


def _not_waiting(address: str, run: Run) -> NoReturn:
    if run.state == State.REJECTED:
        raise UsageError(f"{address} was rejected ({run.verdict.reason}); nothing is to be told of it")
    if run.state == State.REUSED:
        raise UsageError(f"{address} has taken its result over ({run.verdict.reason}); nothing is to be told of it")
    raise UsageError(f"{address} is told already: it is {run.state}; what was told stays")


def _counted(opened: Opened, trial: Trial) -> dict[str, float]:
    """The costs that need no measuring, where the network can be built."""
    evaluator = opened.objects.evaluator
    names = [metric.name for metric in evaluator.metrics if metric.cost and not metric.measured]
    with suppress(TrialError):
        return dict(evaluator.costs(trial.proposal.arch, names))
    return {}
