"""The black-box loop: ask, check, propose (commit), evaluate (reports), result (commit), tell.

Strict order: ask(k) sees exactly the outcomes 0..k-lag, or more when a smaller set made it return None.
So the trajectory depends on the study alone, not on timing or on how many workers there are, and a resumed search is
the same search. Free order tells every outcome as it comes; `asked_after` records what each ask had seen.

One file, because all of it is the state of one loop; verdicts and budget are beside it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from nas_core.architecture import Architecture
from nas_core.errors import NasError
from nas_core.evaluation import Report
from nas_core.failures import ATTEMPTS, Failure, died
from nas_core.records import Run, StopAt, Study, Verdict
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Snapshots, State, Strategy
from studies.executors import Begun, Died, Ended, Event, Executor, Halted, Job, Reported
from studies.executors.inline import Inline
from studies.search.budget import SpentBudget
from studies.search.verdicts import Verdicts
from studies.setup.assemble import StudyObjects
from studies.store.store import Store

REUSED_IN_A_ROW = 1_000
REJECTED_IN_A_ROW = 10_000
SNAPSHOT_SECONDS = 5.0  # of telling, which a resume would have to repeat, between two snapshots

EVALUATED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED})

Curve = list[tuple[float, float]]
Same = str | tuple[str, float | None, int | None]


class Ending(StrEnum):
    """Why a search ended."""

    TRIALS = "all trials are done"
    TIME = "the time is over"
    SPENT = "the budget is spent"
    EXHAUSTED = "there is nothing left to try"
    REJECTED = f"{REJECTED_IN_A_ROW:,} candidates in a row violated a constraint"
    INTERRUPTED = "interrupted"
    DERIVED = "what the supernet derived is evaluated"
    SUPERNET = "the supernet is trained"


@dataclass(slots=True)
class Trial:
    """A trial that has not been told yet."""

    number: int
    run: int
    proposal: Proposal
    identity: str
    verdict: Verdict
    reuses: int | None
    metrics: Mapping[str, float]
    asked_after: int
    curve: Curve = field(default_factory=list)  # (step, first objective), oriented; only where it may end early
    last: Report | None = None  # of the evaluation that runs
    tries: int = 0  # attempts begun since the furthest report
    begun: bool = False  # the attempt that runs is one of them
    furthest: float = -math.inf  # step that any attempt has reported

    @property
    def finished(self) -> bool:
        return self.verdict.state not in (State.WAITING, State.RUNNING)

    @property
    def counts(self) -> bool:
        """Whether it is one of the `--trials` evaluations, as far as was known when it was asked."""
        return self.reuses is None and self.verdict.state != State.REJECTED


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

    `stopping()` is asked after every report: once it is true the search stops with everything stored. `executor` is
    where candidates are evaluated; by default here, one at a time.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        parts: StudyObjects,
        *,
        listener: Listener | None = None,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.store = store
        self.study = study
        self.parts = parts = parts.cached_in(store)
        self.listener = listener or Silent()
        self.stopping = stopping
        self.environment = environment
        self.executor: Executor = executor or Inline(parts.evaluator, parts.trial_seconds)
        self.verdicts = Verdicts(parts)
        self.strategy = parts.make_strategy()
        self.spent = SpentBudget(parts)
        self._ends_early = parts.early_stop is not None or getattr(parts.evaluator, "ends_early", False)
        self.pending: dict[int, Trial] = {}
        self.next = 0
        self.told = 0
        self.evaluated = 0  # trials told that count
        self.best: tuple[float, int] | None = None  # first objective and number of the best feasible trial told
        self._best_budget = 0.0
        self._seen: dict[Same, int] = {}
        self._rejected: dict[str, int] = {}
        self._streak = {State.REUSED: 0, State.REJECTED: 0}
        self._untold: tuple[int, int] | None = None  # told in memory, committed with the next proposal
        self._running: set[int] = set()  # numbers that the executor has
        self._curves: list[Curve] = []  # of the told outcomes, in their order; only where a pruner reads them
        self._telling = 0.0  # seconds of telling since the last snapshot
        self._replay()

    # -- the loop -----------------------------------------------------------------------------------------

    def run(self, stop_at: StopAt) -> Ending:
        """Search until the budget is spent; `stop_at.seconds` counts from now."""
        deadline = None if stop_at.seconds is None else time.monotonic() + stop_at.seconds

        def stopping() -> bool:
            return self.stopping() or (deadline is not None and time.monotonic() >= deadline)

        try:
            while True:
                ending = self._fill(stop_at, deadline)
                if not self.pending:
                    assert ending is not None
                    return ending
                ready = self._ready()
                if ready is not None:
                    self._tell(ready)
                    continue
                halting = ending in (Ending.INTERRUPTED, Ending.TIME)
                if not halting and self._dispatch():
                    continue
                if not self._running:
                    assert ending is not None
                    return ending
                self._handle(self.executor.next(stopping))
        finally:
            self._commit_told()
            self.executor.close()
            for number in list(self._running):
                self._halt(self.pending[number])

    def _fill(self, stop_at: StopAt, deadline: float | None) -> Ending | None:
        """Ask while the order allows it. An ending: nothing more will be asked."""
        while self._may_ask():
            if self.stopping():
                return Ending.INTERRUPTED
            if deadline is not None and time.monotonic() >= deadline:
                return Ending.TIME
            if stop_at.trials is not None and self._committed() >= stop_at.trials:
                return Ending.TRIALS
            if stop_at.spent is not None and self._spent() >= stop_at.spent - 1e-9:
                return Ending.SPENT
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
                return self._halted(deadline)
            self._admit(proposal)
        return self._halted(deadline)

    def _halted(self, deadline: float | None) -> Ending | None:
        """What stops evaluations that have not begun."""
        if self.stopping():
            return Ending.INTERRUPTED
        return Ending.TIME if deadline is not None and time.monotonic() >= deadline else None

    def _may_ask(self) -> bool:
        """Strict: the lag is the study's. Free: a worker has nothing to do."""
        if self.study.spec.ordering == "strict":
            return len(self.pending) < self.study.spec.lag
        return not any(trial.finished for trial in self.pending.values()) and len(self.pending) < self.executor.slots

    def _ready(self) -> Trial | None:
        """The trial to be told next, if it is finished."""
        if self.study.spec.ordering == "strict":
            oldest = next(iter(self.pending.values()))
            return oldest if oldest.finished else None
        return next((trial for trial in self.pending.values() if trial.finished), None)

    def _committed(self) -> int:
        return self.evaluated + sum(trial.counts for trial in self.pending.values())

    def _spent(self) -> float:
        waiting = (self.spent.of(trial.proposal) for trial in self.pending.values() if trial.counts)
        return self.spent.total + sum(waiting)

    def _admit(self, proposal: Proposal) -> None:
        """Judge a proposal without evaluating it, and commit it."""
        identity = self.parts.identity(proposal.arch)
        known, costs = self._before(proposal.arch)
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
            at_once = source is None and all(
                trial.finished or trial.number in self._running for trial in self.pending.values()
            )
            at_once = at_once and len(self._running) < self.executor.slots
            verdict = Verdict(State.RUNNING if at_once else State.WAITING)
        tries = int(verdict.state == State.RUNNING and not self.executor.apart)
        run = self.store.propose(
            self.study,
            self.next,
            proposal,
            identity,
            verdict,
            reuses=source,
            report=report,
            asked_after=self.told,
            told=self._untold,
            environment=self.environment,
            tries=tries,
        )
        self._untold = None
        trial = Trial(self.next, run, proposal, identity, verdict, source, metrics, self.told)
        trial.tries, trial.begun = tries, tries > 0
        self.pending[self.next] = trial
        self.next += 1
        if verdict.state == State.RUNNING:
            self._submit(trial)

    def _before(self, arch: Architecture) -> tuple[Verdict | None, dict[str, float]]:
        """The verdict before evaluation. Its costs may need the network built, by whatever code a user wrote,
        and nothing is stored of the candidate yet: processes that end in that are counted in a file."""
        if self.study.spec.evaluator["name"] == "table" or not self.verdicts.counts_costs:
            return self.verdicts.before(arch)
        mark = self.store.folder(self.study) / "judging"
        key, _, tries = mark.read_text().partition(" ") if mark.is_file() else ("", "", "")
        ended = int(tries) if key == arch.key and tries.isdecimal() else 0
        if ended >= ATTEMPTS:
            return Verdict(State.FAILED, died(ended, of="counting the costs of this candidate")), {}
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{arch.key} {ended + 1}")
        try:
            return self.verdicts.before(arch)
        finally:
            mark.unlink(missing_ok=True)

    def _dispatch(self) -> bool:
        """Start what waits, in the order of the numbers, while the executor has room; whether anything finished."""
        for trial in self.pending.values():
            if trial.finished or trial.number in self._running:
                continue
            if trial.reuses is not None:
                waits_for = self.pending.get(trial.reuses)
                if waits_for is not None and not waits_for.finished:
                    continue
                if self._settle_by_source(trial):
                    return True
            if trial.tries >= ATTEMPTS:
                self._give_up(trial)
                return True
            if len(self._running) >= self.executor.slots:
                return False
            self._start(trial)
        return False

    def _start(self, trial: Trial) -> None:
        """Begin an attempt; it counts from here on, or from where another process says that it has come to it."""
        trial.begun = not self.executor.apart
        trial.tries += trial.begun
        self.store.start(trial.run, self.environment, trial.tries)
        trial.verdict = Verdict(State.RUNNING)
        self._submit(trial)

    def _halt(self, trial: Trial) -> None:
        """An attempt was stopped in good order: it does not count."""
        self._running.remove(trial.number)
        trial.verdict = Verdict(State.WAITING)
        if trial.begun:
            trial.tries, trial.begun = trial.tries - 1, False
            self.store.count_tries(trial.run, trial.tries)

    def _give_up(self, trial: Trial, cause: str = "") -> None:
        """A candidate has taken down too many processes."""
        self._running.add(trial.number)
        self._finish(trial, Verdict(State.FAILED, died(trial.tries, cause)), None)
        trial.metrics = self.store.trial(self.study, trial.number).metrics  # of attempts before

    def _settle_by_source(self, trial: Trial) -> bool:
        """Answer a trial by the one that it repeats; False where that one has failed."""
        assert trial.reuses is not None
        source = self.store.trial(self.study, trial.reuses)
        if source.state != State.COMPLETE:
            return False
        verdict, metrics = self._reuse(trial.proposal, trial.reuses, trial.metrics)
        self.store.finish(trial.run, verdict, self._free_report(trial.proposal, metrics))
        trial.verdict, trial.metrics = verdict, metrics
        return True

    def _submit(self, trial: Trial) -> None:
        budget, target = self._budget(trial.proposal)
        trial.curve.clear()
        trial.last = None
        origin = self._origin(trial.number, trial.proposal)
        workdir = self._folder(trial.number)
        if trial.proposal.continues is not None:
            self._adopt(trial.proposal.continues, workdir)
        seed = derive(self.study.spec.seed, origin, "train")
        self._running.add(trial.number)
        self.listener.started(trial, self.evaluated)
        self.executor.submit(Job(trial.number, trial.proposal, budget, target, seed, workdir, trial.asked_after))

    def _handle(self, event: Event) -> None:
        trial = self.pending[event.number]
        if isinstance(event, Reported):
            self._report(trial, event.report)
        elif isinstance(event, Ended):
            self._end(trial, event.failure)
        elif isinstance(event, Begun):
            trial.tries, trial.begun = trial.tries + 1, True
            self.store.count_tries(trial.run, trial.tries)
        elif isinstance(event, Died):
            self._running.remove(trial.number)
            if trial.tries >= ATTEMPTS:
                self._give_up(trial, event.cause)
            else:
                self._start(trial)
        elif isinstance(event, Halted):
            self._halt(trial)

    def _report(self, trial: Trial, report: Report) -> None:
        trial.last = report
        recovered = trial.tries > 1 and report.step > trial.furthest
        if recovered:
            trial.tries = 1
        trial.furthest = max(trial.furthest, report.step)
        if report.step >= self._budget(trial.proposal)[1]:
            return  # the final report is committed together with the verdict
        if self._prunes(trial, report):
            self.executor.drop(trial.number)
            report = Report(report.step, {**report.metrics, **trial.metrics}, report.seconds)
            verdict = self.verdicts.after(report.metrics, report.seconds)
            if verdict.state == State.COMPLETE:
                verdict = replace(verdict, state=State.PRUNED, reason=f"pruned: at {report.step:g}")
            self._finish(trial, verdict, report)
            return
        self.store.report(trial.run, report, tries=1 if recovered else None)
        self.listener.reported(trial, report)

    def _prunes(self, trial: Trial, report: Report) -> bool:
        """Whether the pruner ends this trial, by its own curve and those of the outcomes told before it was asked."""
        if self.parts.early_stop is None or not self._bend(trial, report):
            return False
        return self.parts.early_stop.prune(trial.curve, self._curves[: trial.asked_after])

    def _bend(self, trial: Trial, report: Report) -> bool:
        """Add a report to the curve that a pruner reads; False where it has no finite value."""
        objective = self.parts.objectives[0]
        value = report.metrics.get(objective.metric, math.nan)
        if not self._ends_early or not math.isfinite(value):
            return False
        if not trial.curve or trial.curve[-1][0] < report.step:
            trial.curve.append((report.step, objective.orient(value)))
        return True

    def _end(self, trial: Trial, failure: Failure | None) -> None:
        last, stored = trial.last, True
        if failure is not None:
            verdict = Verdict(State.FAILED, failure.reason, traceback=failure.traceback)
        elif last is None:
            verdict = Verdict(State.FAILED, "no-report: the evaluator ended without a report")
        else:
            last = Report(last.step, {**last.metrics, **trial.metrics}, last.seconds)
            verdict = self.verdicts.after(last.metrics, last.seconds)
            stored = False
        final = last is not None and last.step >= self._budget(trial.proposal)[1]
        self._finish(trial, verdict, last if final or not stored else None)

    def _finish(self, trial: Trial, verdict: Verdict, report: Report | None) -> None:
        """Commit the end of an evaluation; its files stay where its training may go on."""
        self.store.finish(trial.run, verdict, report)
        trial.verdict = verdict
        trial.metrics = trial.last.metrics if trial.last is not None else {}
        if report is not None:
            trial.metrics = report.metrics
            self._bend(trial, report)
        self._running.remove(trial.number)
        if not self._continuable(trial.proposal, verdict.state):
            shutil.rmtree(self._folder(trial.number), ignore_errors=True)
        if trial.proposal.continues is not None and verdict.state == State.COMPLETE:
            shutil.rmtree(self._folder(self._holder(trial.proposal.continues)), ignore_errors=True)

    def _tell(self, trial: Trial) -> None:
        """Tell the strategy; the commit follows with the next proposal, and a replay would do the same."""
        self._commit_told()
        self._snapshot()
        del self.pending[trial.number]
        verdict = trial.verdict
        outcome = Outcome(
            trial.number, trial.proposal, verdict.state, verdict.values, verdict.violations, dict(trial.metrics)
        )
        self._learn(outcome, trial.identity, trial.curve)
        self.executor.told(trial.number, trial.asked_after, verdict.seconds or 0.0)
        begun = time.perf_counter()
        self.strategy.tell(outcome)
        self._telling += time.perf_counter() - begun
        self._untold = (trial.run, self.told)
        self.told += 1
        self.listener.finished(trial, self.evaluated)

    def _learn(self, outcome: Outcome, identity: str, curve: Curve) -> None:
        """What the loop itself remembers of an outcome."""
        state, proposal = outcome.state, outcome.proposal
        if state == State.COMPLETE:
            self._seen.setdefault(self._same(proposal, identity), outcome.number)
        again = state == State.REJECTED and proposal.arch.key in self._rejected
        if state == State.REJECTED:
            self._rejected.setdefault(proposal.arch.key, outcome.number)
        self.evaluated += state in EVALUATED
        if state in (State.COMPLETE, State.REUSED) and outcome.values and outcome.violation == 0:
            budget = math.inf if proposal.budget is None else proposal.budget
            if self.best is None or (budget, outcome.values[0]) > (self._best_budget, self.best[0]):
                self.best, self._best_budget = (outcome.values[0], outcome.number), budget
        for streak in self._streak:
            if state == streak:
                self._streak[streak] += 1
            elif not again:  # what was rejected before is nothing new among what is reused
                self._streak[streak] = 0
        self.spent.learn(outcome, curve[-1][0] if curve else None)
        if self.parts.early_stop is not None:
            self._curves.append(list(curve) if state == State.COMPLETE else [])

    def _commit_told(self) -> None:
        if self._untold is not None:
            self.store.tell(*self._untold)
            self._untold = None

    def _snapshot(self) -> None:
        """Store the strategy's state where telling it all again would take long; all that was told is committed."""
        if self._telling >= SNAPSHOT_SECONDS and isinstance(self.strategy, Snapshots):
            self.store.save_snapshot(self.study, self.told, self.strategy.state_dict())
            self._telling = 0.0

    # -- duplicates and continuations ---------------------------------------------------------------------

    def _same(self, proposal: Proposal, identity: str) -> Same:
        """What must be equal for two proposals to be one evaluation."""
        if proposal.budget is None and proposal.continues is None:
            return identity
        holder = None if proposal.continues is None else self._holder(proposal.continues)
        return identity, proposal.budget, holder

    def _source(self, proposal: Proposal, identity: str) -> int | None:
        """The trial that this proposal repeats: a complete one, or one that is pending."""
        same = self._same(proposal, identity)
        if same in self._seen:
            return self._seen[same]
        for trial in self.pending.values():  # whatever has become of it meanwhile: timing must not matter
            if trial.counts and self._same(trial.proposal, trial.identity) == same:
                return trial.number
        return None

    def _reuse(
        self, proposal: Proposal, source: int, costs: Mapping[str, float]
    ) -> tuple[Verdict, Mapping[str, float]]:
        """The learned metrics of the source and the architecture's own costs."""
        original = self.store.trial(self.study, source)
        metrics = self.verdicts.reuse(original, proposal.arch, costs)
        verdict = self.verdicts.after(metrics, 0.0)
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

    def _holder(self, number: int) -> int:
        """The trial that has the files of trial `number`: itself, or the one whose result it reuses."""
        run = self.store.trial(self.study, number)
        return run.reuses if run.state == State.REUSED and run.reuses is not None else number

    def _origin(self, number: int, proposal: Proposal) -> int:
        """The trial with which a training began: what it draws at random stays the same when it goes on."""
        while proposal.continues is not None:
            number = self._holder(proposal.continues)
            proposal = self.store.trial(self.study, number).proposal
        return number

    def _continuable(self, proposal: Proposal, state: State) -> bool:
        """Whether a strategy may ask for more of a finished training."""
        fidelity = self.parts.evaluator.fidelity
        if state != State.COMPLETE or fidelity is None or not fidelity.continues:
            return False
        return proposal.budget is not None and proposal.budget < fidelity.high

    def _adopt(self, continued: int, workdir: Path) -> None:
        """Begin at the checkpoint of another trial. Without one the training starts over, to the same result."""
        from training.checkpoint import adopt

        adopt(self._folder(self._holder(continued)), workdir)

    def _folder(self, number: int) -> Path:
        return self.store.folder(self.study) / f"trial-{number}"

    # -- history ------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Tell what had been told, in the recorded order, and put unfinished trials back to work."""
        told: list[Run] = []
        objective = self.parts.objectives[0]
        curves: Mapping[int, Curve] = {}
        if self._ends_early:
            curves = {
                number: [(step, objective.orient(value)) for step, value in curve if math.isfinite(value)]
                for number, curve in self.store.curves(self.study, objective.metric).items()
            }
        kept: set[int] = set()  # trials whose training may go on
        for run in self.store.trials(self.study, metrics=True):
            self.next = run.number + 1
            if run.told is not None:
                told.append(run)
            else:
                asked_after = run.asked_after or 0
                self.pending[run.number] = Trial(
                    run.number, run.id, run.proposal, run.identity, _restored(run), run.reuses, run.metrics, asked_after
                )
                if run.state in EVALUATED:
                    self.pending[run.number].curve = curves.get(run.number, [])
                elif run.tries:
                    self.pending[run.number].tries = run.tries
                    steps = [report.step for report in self.store.curve(run)]
                    self.pending[run.number].furthest = max(steps, default=-math.inf)
            if self._continuable(run.proposal, run.state):
                kept.add(run.number)
            if run.state == State.COMPLETE and run.proposal.continues is not None:
                kept.discard(self._holder(run.proposal.continues))
        told.sort(key=lambda run: run.told or 0)
        known = restore(self.strategy, self.store, self.study, len(told))
        for position, run in enumerate(told):
            outcome = run.outcome()
            self._learn(outcome, run.identity, curves.get(run.number, []) if run.state in EVALUATED else [])
            self.executor.told(run.number, run.asked_after or 0, run.verdict.seconds or 0.0)
            if position >= known:
                self.strategy.tell(outcome)
        self.told = len(told)
        for trial in self.pending.values():
            if not trial.finished:
                trial.metrics = self.verdicts.before(trial.proposal.arch)[1]
        self._sweep(kept)

    def _sweep(self, kept: set[int]) -> None:
        """Remove what killed processes left of finished trials."""
        folder = self.store.folder(self.study)
        for child in folder.glob("trial-*"):
            number = child.name.removeprefix("trial-")
            if number.isdecimal() and int(number) < self.next and int(number) not in kept | self.pending.keys():
                shutil.rmtree(child, ignore_errors=True)


def restore(strategy: Strategy, store: Store, study: Study, told: int) -> int:
    """Load the newest intact snapshot of at most `told` outcomes into a new strategy; how many it knows by it."""
    if isinstance(strategy, Snapshots):
        for known, state in store.snapshots(study):
            if known <= told:
                strategy.load_state_dict(state)
                return known
    return 0


def _restored(run: Run) -> Verdict:
    """An unfinished run waits to be started again, whatever it was doing."""
    return run.verdict if run.finished else Verdict(State.WAITING)
