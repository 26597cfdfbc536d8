"""The black-box loop: ask, check, propose (commit), evaluate (reports), result (commit), tell.

Strict order: ask(k) sees exactly the outcomes 0..k-lag, or more when a smaller set made it return None.
So the trajectory depends on the study alone, not on timing, and a resumed search is the same search.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from nas_core.errors import NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.records import Run, StopAt, Study, Verdict
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, State
from studies.assemble import Parts
from studies.judge import Judge
from studies.store.store import Store
from studies.timelimit import within

REUSED_IN_A_ROW = 1_000
REJECTED_IN_A_ROW = 10_000


class Ending(StrEnum):
    """Why a search ended."""

    TRIALS = "all trials are done"
    TIME = "the time is over"
    EXHAUSTED = "there is nothing left to try"
    REJECTED = f"{REJECTED_IN_A_ROW:,} candidates in a row violated a constraint"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Trial:
    """A trial that has not been told yet."""

    number: int
    run: int
    proposal: Proposal
    identity: str
    verdict: Verdict
    source: int | None
    metrics: Mapping[str, float]

    @property
    def finished(self) -> bool:
        return self.verdict.state not in (State.WAITING, State.RUNNING)

    @property
    def counts(self) -> bool:
        """Whether it is one of the `--trials` evaluations, as far as was known when it was asked."""
        return self.source is None and self.verdict.state != State.REJECTED


class Listener(Protocol):
    """Hears of everything after it has been committed."""

    def started(self, trial: Trial, evaluated: int) -> None: ...
    def reported(self, trial: Trial, report: Report) -> None: ...
    def finished(self, trial: Trial, evaluated: int) -> None: ...


class Silent:
    """A listener that does nothing."""

    def started(self, trial: Trial, evaluated: int) -> None: ...
    def reported(self, trial: Trial, report: Report) -> None: ...
    def finished(self, trial: Trial, evaluated: int) -> None: ...


class Search:
    """One study being searched by this process. Construction replays the study's history.

    `stopping()` is asked after every report: once it is true the search stops with everything stored.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        parts: Parts,
        *,
        listener: Listener | None = None,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
    ) -> None:
        self.store = store
        self.study = study
        self.parts = parts
        self.listener = listener or Silent()
        self.stopping = stopping
        self.environment = environment
        self.judge = Judge(parts)
        self.strategy = parts.make_strategy()
        self.pending: dict[int, Trial] = {}
        self.next = 0
        self.told = 0
        self.evaluated = 0  # trials told that count
        self.best: tuple[float, int] | None = None  # first objective and number of the best feasible trial told
        self._seen: dict[tuple[str, float | None] | str, int] = {}
        self._rejected: dict[str, int] = {}
        self._streak = {State.REUSED: 0, State.REJECTED: 0}
        self._untold: tuple[int, int] | None = None  # told in memory, committed with the next proposal
        self._replay()

    # -- the loop -----------------------------------------------------------------------------------------

    def run(self, stop_at: StopAt) -> Ending:
        """Search until the budget is spent; `stop_at.seconds` counts from now."""
        deadline = None if stop_at.seconds is None else time.monotonic() + stop_at.seconds
        try:
            while True:
                ending = self._fill(stop_at, deadline)
                if not self.pending:
                    assert ending is not None
                    return ending
                oldest = next(iter(self.pending.values()))
                if not oldest.finished:
                    if ending in (Ending.INTERRUPTED, Ending.TIME):
                        return ending
                    if not self._evaluate(oldest, deadline):
                        return Ending.INTERRUPTED if self.stopping() else Ending.TIME
                self._tell(oldest)
        finally:
            self._commit_told()

    def _fill(self, stop_at: StopAt, deadline: float | None) -> Ending | None:
        """Ask while the order allows it. An ending: nothing more will be asked."""
        while len(self.pending) < self.study.spec.lag:
            if self.stopping():
                return Ending.INTERRUPTED
            if deadline is not None and time.monotonic() >= deadline:
                return Ending.TIME
            if stop_at.trials is not None and self._committed() >= stop_at.trials:
                return Ending.TRIALS
            if self._streak[State.REUSED] >= REUSED_IN_A_ROW:
                return Ending.EXHAUSTED
            if self._streak[State.REJECTED] >= REJECTED_IN_A_ROW:
                return Ending.REJECTED
            try:
                proposal = self.strategy.ask(
                    self.next, [Pending(trial.number, trial.proposal) for trial in self.pending.values()]
                )
            except Exhausted:
                return Ending.EXHAUSTED
            if proposal is None:
                if not self.pending:
                    raise NasError(f"strategy '{self.study.spec.strategy}' waits, but no trial is pending")
                return None
            self._admit(proposal)
        return None

    def _committed(self) -> int:
        return self.evaluated + sum(trial.counts for trial in self.pending.values())

    def _admit(self, proposal: Proposal) -> None:
        """Judge a proposal without evaluating it, and commit it."""
        identity = self.parts.identity(proposal.arch)
        known, costs = self.judge.before(proposal.arch)
        source = self._source(proposal, identity) if known is None else self._rejected.get(proposal.arch.key)
        report: Report | None = None
        metrics: Mapping[str, float] = costs
        if known is not None:
            verdict = known
            report = self._free_report(proposal, costs) if costs else None
        elif source is not None and source not in self.pending:
            verdict, metrics = self._reuse(proposal, source, costs)
            report = self._free_report(proposal, metrics)
        else:
            at_once = source is None and not self.pending
            verdict = Verdict(State.RUNNING if at_once else State.WAITING)
        run = self.store.propose(
            self.study,
            self.next,
            proposal,
            identity,
            verdict,
            source=source,
            report=report,
            asked_after=self.told,
            told=self._untold,
            environment=self.environment,
        )
        self._untold = None
        trial = Trial(self.next, run, proposal, identity, verdict, source, metrics)
        self.pending[self.next] = trial
        self.next += 1

    def _evaluate(self, trial: Trial, deadline: float | None) -> bool:
        """Bring a pending trial to its verdict; False when the search stops before that."""
        if trial.source is not None:
            source = self.store.trial(self.study, trial.source)
            if source.state == State.COMPLETE:
                verdict, metrics = self._reuse(trial.proposal, trial.source, trial.metrics)
                self.store.finish(trial.run, verdict, self._free_report(trial.proposal, metrics))
                self._settle(trial, verdict, metrics)
                return True
        if trial.verdict.state == State.WAITING:
            self.store.start(trial.run, self.environment)
            trial.verdict = Verdict(State.RUNNING)
        self.listener.started(trial, self.evaluated)
        return self._train(trial, deadline)

    def _train(self, trial: Trial, deadline: float | None) -> bool:
        budget, target = self._budget(trial.proposal)
        workdir = self.store.folder(self.study) / f"trial-{trial.number}"
        limits = [limit for limit in (deadline,) if limit is not None]
        context = Context(
            seed=derive(self.study.spec.seed, trial.number, "train"),
            workdir=workdir,
            deadline=None if self.parts.trial_seconds is None else time.monotonic() + self.parts.trial_seconds,
            stopping=lambda: self.stopping() or any(time.monotonic() >= limit for limit in limits),
        )
        last: Report | None = None
        stored = False
        reports = self.parts.evaluator.evaluate(trial.proposal, budget, context)
        try:
            for last in within(reports, self.parts.trial_seconds):
                stored = last.step < target
                if stored:  # the final report is committed together with the verdict
                    self.store.report(trial.run, last)
                    self.listener.reported(trial, last)
                    if context.stopping():
                        reports.close()  # type: ignore[attr-defined]
                        return False
        except TrialError as error:
            verdict = Verdict(State.FAILED, str(error))
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's space or evaluator raises spoils its trial only
            verdict = Verdict(State.FAILED, f"exception: {type(error).__name__}: {error}")
        else:
            if last is None:
                verdict = Verdict(State.FAILED, "no-report: the evaluator ended without a report")
            else:
                last = Report(last.step, {**last.metrics, **trial.metrics}, last.seconds)
                verdict = self.judge.after(last.metrics, last.seconds)
                stored = False
        self.store.finish(trial.run, verdict, None if stored else last)
        self._settle(trial, verdict, last.metrics if last is not None else {})
        if workdir.is_dir():
            shutil.rmtree(workdir, ignore_errors=True)
        return True

    def _settle(self, trial: Trial, verdict: Verdict, metrics: Mapping[str, float]) -> None:
        trial.verdict = verdict
        trial.metrics = metrics

    def _tell(self, trial: Trial) -> None:
        """Tell the strategy; the commit follows with the next proposal, and a replay would do the same."""
        self._commit_told()
        del self.pending[trial.number]
        verdict = trial.verdict
        outcome = Outcome(
            trial.number, trial.proposal, verdict.state, verdict.values, verdict.violations, dict(trial.metrics)
        )
        self._learn(outcome, trial.identity)
        self._untold = (trial.run, self.told)
        self.told += 1
        self.listener.finished(trial, self.evaluated)

    def _learn(self, outcome: Outcome, identity: str) -> None:
        state = outcome.state
        if state == State.COMPLETE:
            self._seen.setdefault(_same(outcome.proposal, identity), outcome.number)
        elif state == State.REJECTED:
            self._rejected.setdefault(outcome.proposal.arch.key, outcome.number)
        self.evaluated += state in (State.COMPLETE, State.FAILED)
        if outcome.values and outcome.violation == 0 and (self.best is None or outcome.values[0] > self.best[0]):
            self.best = (outcome.values[0], outcome.number)
        for streak in self._streak:
            self._streak[streak] = self._streak[streak] + 1 if state == streak else 0
        self.strategy.tell(outcome)

    def _commit_told(self) -> None:
        if self._untold is not None:
            self.store.tell(*self._untold)
            self._untold = None

    # -- duplicates ---------------------------------------------------------------------------------------

    def _source(self, proposal: Proposal, identity: str) -> int | None:
        """The trial that this proposal repeats: a complete one, or one that is pending."""
        same = _same(proposal, identity)
        if same in self._seen:
            return self._seen[same]
        for trial in self.pending.values():  # whatever has become of it meanwhile: timing must not matter
            if trial.counts and _same(trial.proposal, trial.identity) == same:
                return trial.number
        return None

    def _reuse(
        self, proposal: Proposal, source: int, costs: Mapping[str, float]
    ) -> tuple[Verdict, Mapping[str, float]]:
        """The learned metrics of the source and the architecture's own costs."""
        original = self.store.trial(self.study, source)
        metrics = self.judge.reuse(original, proposal.arch, costs)
        verdict = self.judge.after(metrics, 0.0)
        if verdict.state == State.COMPLETE:
            verdict = replace(verdict, state=State.REUSED, reason=f"same as trial {source}")
        return verdict, metrics

    def _free_report(self, proposal: Proposal, metrics: Mapping[str, float]) -> Report:
        return Report(self._budget(proposal)[1], metrics)

    def _budget(self, proposal: Proposal) -> tuple[float | None, float]:
        """The budget of a proposal (None: the full one), and the step of the final report."""
        budget = self.parts.budget if proposal.budget is None else proposal.budget
        fidelity = self.parts.evaluator.fidelity
        return budget, budget if budget is not None else fidelity.high if fidelity else 0.0

    # -- history ------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Tell what had been told, in the recorded order, and put unfinished trials back to work."""
        told: list[Run] = []
        for run in self.store.trials(self.study, metrics=True):
            self.next = run.number + 1
            if run.told is not None:
                told.append(run)
            else:
                self.pending[run.number] = Trial(
                    run.number, run.id, run.proposal, run.identity, _restored(run), run.source, run.metrics
                )
        for run in sorted(told, key=lambda run: run.told or 0):
            self._learn(run.outcome(), run.identity)
        self.told = len(told)
        for trial in self.pending.values():
            if not trial.finished:
                trial.metrics = self.judge.before(trial.proposal.arch)[1]
        self._sweep()

    def _sweep(self) -> None:
        """Remove what killed processes left of finished trials."""
        folder = self.store.folder(self.study)
        for child in folder.glob("trial-*"):
            number = child.name.removeprefix("trial-")
            if number.isdecimal() and int(number) < self.next and int(number) not in self.pending:
                shutil.rmtree(child, ignore_errors=True)


def _same(proposal: Proposal, identity: str) -> tuple[str, float | None] | str:
    """What must be equal for two proposals to be one evaluation."""
    return identity if proposal.budget is None else (identity, proposal.budget)


def _restored(run: Run) -> Verdict:
    """An unfinished run waits to be started again, whatever it was doing."""
    return run.verdict if run.finished else Verdict(State.WAITING)
