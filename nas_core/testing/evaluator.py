"""The contract of an evaluator: `check` runs it and yields what is wrong; no finding means that it holds."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from nas_core.architecture import Architecture
from nas_core.errors import TrialError
from nas_core.evaluation import Budget, Context, Evaluator, Fidelity, Metric, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.testing.findings import collect


def check(evaluator: Evaluator, space: SearchSpace, arch: Architecture, budget: Budget | None = None) -> Iterator[str]:
    """What is wrong with `evaluator`, seen by evaluating `arch` of `space` several times up to `budget`."""
    reason = space.illegal(arch)
    if reason:
        raise ValueError(f"the architecture to check with is illegal: {reason}")
    found = list(collect("declaration", _declaration, evaluator))
    yield from found
    if found:
        return  # without the declared metrics nothing else can be compared
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(evaluator, Proposal(arch, budget), budget, Path(folder))
        found = list(collect("reports", _reports, run))
        yield from found
        yield from collect("costs", _costs, run)
        yield from collect("identity", _identity, run)
        yield from collect("deadline", _deadline, run)
        if found:
            return  # the rest compares reports
        yield from collect("closing", _closing, run)
        if evaluator.deterministic:
            yield from collect("repeat", _repeat, run)
            yield from collect("resume", _resume, run)
        if evaluator.fidelity is not None:
            yield from collect("fidelity", _fidelity, run)


class _Run:
    """One proposal, evaluated again and again, each time with a folder of its own."""

    def __init__(self, evaluator: Evaluator, proposal: Proposal, budget: Budget | None, folder: Path) -> None:
        self.evaluator = evaluator
        self.proposal = proposal
        self.budget = budget
        self.folder = folder
        self.metrics: Mapping[str, Metric] = {metric.name: metric for metric in evaluator.metrics}
        self._full: list[Report] | None = None

    def context(self, name: str, stopping: bool = False, deadline: float | None = None) -> Context:
        workdir = self.folder / name
        workdir.mkdir(exist_ok=True)
        return Context(11, workdir, deadline, lambda: stopping)

    def reports(self, name: str, budget: Budget | None) -> list[Report]:
        return list(self.evaluator.evaluate(self.proposal, budget, self.context(name)))

    @property
    def full(self) -> list[Report]:
        """The uninterrupted run that others are compared with."""
        if self._full is None:
            self._full = self.reports("full", self.budget)
        return self._full

    def comparable(self, reports: Sequence[Report]) -> list[str]:
        """What must repeat exactly: steps and all metrics but measured ones, as text (nan equals nan)."""
        return [
            json.dumps([report.step, {n: v for n, v in report.metrics.items() if not self.metrics[n].measured}])
            for report in reports
        ]

    def difference(self, reports: Sequence[Report], wanted: Sequence[Report]) -> str | None:
        mine, others = self.comparable(reports), self.comparable(wanted)
        for one, other in zip(mine, others, strict=False):
            if one != other:
                return f"{one} instead of {other}"
        return None if len(mine) == len(others) else f"{len(mine)} reports instead of {len(others)}"


def _declaration(evaluator: Evaluator) -> Iterator[str]:
    names = [metric.name for metric in evaluator.metrics]
    if not names or len(set(names)) != len(names):
        yield f"the metrics are none, or repeat a name: {names}"
    if not isinstance(evaluator.metrics, tuple) or not all(isinstance(m, Metric) for m in evaluator.metrics):
        yield "metrics is not a tuple of Metric"
    for attribute in ("deterministic", "in_process"):
        if not isinstance(getattr(evaluator, attribute), bool):
            yield f"{attribute} is {getattr(evaluator, attribute)!r}, neither True nor False"
    fidelity = evaluator.fidelity
    if fidelity is None:
        return
    if not isinstance(fidelity, Fidelity) or not 0 < fidelity.low <= fidelity.high:
        yield f"the fidelity is {fidelity!r}; wanted 0 < low <= high"
    elif fidelity.levels is not None and (
        list(fidelity.levels) != sorted(set(fidelity.levels))
        or (fidelity.levels[0], fidelity.levels[-1]) != (fidelity.low, fidelity.high)
    ):
        yield f"levels {fidelity.levels} do not rise from low {fidelity.low:g} to high {fidelity.high:g}"


def _reports(run: _Run) -> Iterator[str]:
    if not run.full:
        yield "there are none"
        return
    for report in run.full:
        yield from _plain(report, run)
    for earlier, later in pairwise(run.full):
        if later.step <= earlier.step:
            yield f"step {later.step:g} follows step {earlier.step:g}"
        if later.seconds < earlier.seconds:
            yield f"seconds fall from {earlier.seconds:g} to {later.seconds:g} at step {later.step:g}"
    fidelity = run.evaluator.fidelity
    last = run.budget if run.budget is not None else fidelity.high if fidelity else None
    if last is not None and run.full[-1].step != last:
        yield f"the final step is {run.full[-1].step:g} instead of {last:g}"
    known = run.full[-1].metrics.keys() | run.evaluator.costs(run.proposal.arch, list(run.metrics)).keys()
    if missing := run.metrics.keys() - known:
        yield f"declared metrics are neither in the final report nor among the costs: {', '.join(sorted(missing))}"


def _plain(report: Report, run: _Run) -> Iterator[str]:
    if unknown := report.metrics.keys() - run.metrics.keys():
        yield f"step {report.step} reports undeclared metrics: {', '.join(sorted(unknown))}"
    numbers = {"step": report.step, "seconds": report.seconds, **report.metrics}
    for name, value in numbers.items():
        if type(value) not in (int, float):
            yield f"{name} at step {report.step} is a {type(value).__name__}, not a float"
        elif math.isinf(value) or (name in ("step", "seconds") and not value >= 0):
            yield f"{name} at step {report.step} is {value}"
    if pickle.loads(pickle.dumps(report)).step != report.step:
        yield f"the report of step {report.step} does not survive pickling"


def _costs(run: _Run) -> Iterator[str]:
    arch, evaluator = run.proposal.arch, run.evaluator
    names = [metric.name for metric in evaluator.metrics if metric.cost]
    costs = evaluator.costs(arch, names)
    if extra := costs.keys() - set(names):
        yield f"they hold metrics not declared as costs: {', '.join(sorted(extra))}"
    for name, value in costs.items():
        if type(value) not in (int, float) or math.isinf(value):
            yield f"{name} is {value!r}, not a finite float or nan"
        alone = evaluator.costs(arch, [name])
        if set(alone) != {name}:
            yield f"asked for {name} alone they are {dict(alone)}"
        elif not run.metrics[name].measured and repr(alone[name]) != repr(value):
            yield f"{name} is {value}, and {alone[name]} when asked for again"
        if not run.full or name not in run.full[-1].metrics or run.metrics[name].measured:
            continue
        if repr(float(run.full[-1].metrics[name])) != repr(float(value)):
            yield f"{name} is {value} before the evaluation and {run.full[-1].metrics[name]} in the final report"


def _identity(run: _Run) -> Iterator[str]:
    arch = run.proposal.arch
    one, other = run.evaluator.identity(arch), run.evaluator.identity(Architecture.from_json(arch.to_json()))
    if not isinstance(one, str | None) or one == "" or one != other:
        yield f"{one!r}, then {other!r} for the same architecture; wanted one text, or None"


def _deadline(run: _Run) -> Iterator[str]:
    """A deadline in the past may be ignored (by a table) or end as a trial's failure, nothing else."""
    context = run.context("deadline", deadline=time.monotonic() - 1)
    try:
        list(run.evaluator.evaluate(run.proposal, run.budget, context))
    except TrialError as error:
        if not error.reason:
            yield "the failure has no reason"


def _closing(run: _Run) -> Iterator[str]:
    """Closing before the first report, and after it, raises nothing."""
    for count in (0, 1):
        reports = run.evaluator.evaluate(run.proposal, run.budget, run.context(f"closed-{count}"))
        for _ in range(count):
            next(reports)
        if not hasattr(reports, "close"):
            yield "evaluate returns no generator, so a candidate cannot be stopped"
            return
        reports.close()


def _repeat(run: _Run) -> Iterator[str]:
    difference = run.difference(run.reports("again", run.budget), run.full)
    if difference:
        yield f"the same seed gives {difference}"


def _resume(run: _Run) -> Iterator[str]:
    """Closed after its first report, or asked to stop, and started again in the same folder: the same reports."""
    for stopping in (False, True):
        name = f"resumed-{stopping}"
        reports = run.evaluator.evaluate(run.proposal, run.budget, run.context(name, stopping))
        next(reports)
        reports.close()  # type: ignore[attr-defined]
        difference = run.difference(run.reports(name, run.budget), run.full)
        if difference:
            asked = "asked to stop" if stopping else "closed"
            yield f"{asked} after one report and started again in the same folder: {difference}"


def _fidelity(run: _Run) -> Iterator[str]:
    """The lowest budget is reached exactly; where evaluations continue, its reports begin the full run's."""
    fidelity = run.evaluator.fidelity
    assert fidelity is not None
    reports = run.reports("low", fidelity.low)
    if not reports or reports[-1].step != fidelity.low:
        yield f"the budget {fidelity.low:g} ends at step {reports[-1].step if reports else None}"
    if fidelity.continues and run.evaluator.deterministic and len(run.full) >= len(reports):
        difference = run.difference(reports, run.full[: len(reports)])
        if difference:
            yield f"the budget {fidelity.low:g} gives {difference} in the full evaluation"
