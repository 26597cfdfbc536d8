"""The black-box loop: ask, check, propose (commit), evaluate (reports), result (commit), tell.

Strict order: ask(k) sees exactly the outcomes 0..k-lag, or more when a smaller set made it return None.
So the trajectory depends on the study alone, not on timing or on how many workers there are, and a resumed search is
the same search. Free order tells every outcome as it comes; `asked_after` records what each ask had seen.

The state of one loop is here. Beside it: which candidates are known (`duplicates`), what is on its way into the store
(`proposals`), the folders of trials (`workdirs`), what was told (`history`), what the store knows of it (`replay`),
early stopping, verdicts and budgets.

`run` drives it with an executor. Who evaluates in another way calls `advance`, evaluates what the executor was given,
and says by `report` and `settle` what came of it; `close` ends it in good order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from nas_core.architecture import Architecture
from nas_core.errors import NasError, UsageError
from nas_core.evaluation import Report
from nas_core.failures import ATTEMPTS, Failure, died
from nas_core.records import TRIAL, Proposed, StopAt, Verdict
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Pending, Proposal, Snapshots, State, donors_of
from studies import events, executors
from studies.events import Listener
from studies.executors import Begun, Died, Ended, Executor, Halted, Job
from studies.executors.inline import Inline
from studies.records import Study
from studies.search.budget import SpentBudget
from studies.search.duplicates import Duplicates
from studies.search.early_stopping import EarlyStopping
from studies.search.endings import Ending, reached
from studies.search.history import History
from studies.search.proposals import Proposals
from studies.search.replay import Recorded, restore
from studies.search.trial import Curve, Told, Trial
from studies.search.verdicts import Verdicts
from studies.search.workdirs import Workdirs
from studies.setup.assemble import StudyObjects
from studies.store.store import Store

# Between two snapshots: seconds of telling, and outcomes, which a resume would have to tell again.
SNAPSHOT_SECONDS = 5.0
SNAPSHOT_OUTCOMES, SNAPSHOT_SHARE = 5_000, 0.1  # at least, and of all outcomes


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
        listener: Listener = events.silent,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.store, self.study = store, study
        self.parts = parts = parts.cached_in(store)
        self.listener = listener
        self.stopping = stopping
        self.environment = environment
        self.executor: Executor = executor or Inline(parts.evaluator, parts.trial_seconds)
        self.verdicts = Verdicts(parts)
        self.strategy = parts.make_strategy()
        self.spent = SpentBudget(parts)
        self._proposals = Proposals(store, study, lambda event: self.listener(event))  # who listens may change
        self._workdirs = Workdirs(store, study, parts.evaluator.fidelity, donors_of(self.strategy) is not None)
        self._duplicates = Duplicates(store, study, self.verdicts, self._workdirs.holder)
        self._history = History()
        self._early_stopping = EarlyStopping(parts)
        self.pending: dict[int, Trial] = {}
        self.next = 0
        self.told = 0
        self._running: set[int] = set()  # numbers that the executor has
        self._telling = 0.0  # seconds of telling since the last snapshot
        self._kept = 0  # outcomes that the last snapshot has
        self._replay()

    @property
    def evaluated(self) -> int:
        """Trials told that count."""
        return self._history.evaluated

    @property
    def best(self) -> tuple[float, int] | None:
        """First objective and number of the best feasible trial told."""
        return self._history.best

    # -- the loop -----------------------------------------------------------------------------------------

    def run(self, stop_at: StopAt) -> Ending:
        """Search until the budget is spent; `stop_at.seconds` counts from now."""
        deadline = None if stop_at.seconds is None else time.monotonic() + stop_at.seconds

        def stopping() -> bool:
            return self.stopping() or (deadline is not None and time.monotonic() >= deadline)

        try:
            while True:
                ending = self.advance(stop_at, deadline)
                if not self._running:
                    assert ending is not None
                    return ending
                self._handle(self.executor.next(stopping))
        finally:
            self.close()

    def advance(self, stop_at: StopAt, deadline: float | None = None) -> Ending | None:
        """Ask, tell and start whatever can be without another result. An ending: nothing more will be asked."""
        while True:
            ending = self._fill(stop_at, deadline)
            halting = ending in (Ending.INTERRUPTED, Ending.TIME)
            ready = None if not self.pending or (halting and self._owes_an_ask()) else self._ready()
            if ready is not None:
                self._tell(ready)
                continue
            self._proposals.commit()
            if not self.pending or halting or not self._dispatch():
                return ending

    def settle(self, number: int, reports: Iterable[Report], failure: Failure | None = None) -> Trial:
        """End a pending trial by reports that the executor did not bring, the last one final, or by a failure; what an
        early stop leaves out is not read. Raises KeyError for a trial that is not pending."""
        trial = self.pending[number]
        self._running.add(number)
        for report in reports:
            self._report(trial, report)
            if trial.finished:
                return trial
        self._end(trial, failure)
        return trial

    def report(self, number: int, report: Report) -> Trial:
        """Take in a step before the last of a pending trial, which may end it early; the executor did not bring it.
        Raises KeyError for a trial that is not pending."""
        trial = self.pending[number]
        for earlier in self.store.curve(self.store.trial(self.study, number)):
            self._early_stopping.extend(trial, earlier)
        self._running.add(number)
        self._report(trial, report)
        self._running.discard(number)
        return trial

    def close(self) -> None:
        """Commit what was proposed and told, and stop what runs; a resume goes on with it."""
        try:
            self._proposals.commit()
            self._proposals.commit_told()
        finally:  # whatever the database answers
            self.executor.close()
        for number in list(self._running):
            self._halt(self.pending[number])

    def _fill(self, stop_at: StopAt, deadline: float | None) -> Ending | None:
        """Ask while the order allows it. An ending: nothing more will be asked."""
        while self._may_ask():
            halted = self._halted(deadline)
            if halted is not None:
                return halted
            over = reached(stop_at, self._committed(), self._spent(), self._history.streak)
            if over is not None:
                return over
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
        """What stops before its next proposal, and evaluations that have not begun."""
        if self.stopping():
            return Ending.INTERRUPTED
        return Ending.TIME if deadline is not None and time.monotonic() >= deadline else None

    def _may_ask(self) -> bool:
        """Strict: the lag is the study's. Free: a worker has nothing to do."""
        if self.study.spec.ordering == "strict":
            return len(self.pending) < self.study.spec.lag
        return not any(trial.finished for trial in self.pending.values()) and len(self.pending) < self.executor.slots

    def _owes_an_ask(self) -> bool:
        """Whether an ask comes before the next tell: where a search stops between the two, its resume asks first."""
        return self.study.spec.ordering == "strict" and self._may_ask()

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
        if proposal.continues is not None or proposal.transfer is not None:
            self._proposals.commit()  # the trial that it names is looked up in the store
        if proposal.transfer is not None and not getattr(self.parts.evaluator, "transfers", False):
            raise UsageError(
                f"strategy '{self.study.spec.strategy}' begins trainings with the weights of other trials, which "
                f"evaluator '{self.study.spec.evaluator.kind}' does not"
            )
        identity = self.parts.identity(proposal.arch)
        known, costs = self._before(proposal.arch)
        if known is None:
            source = self._duplicates.source(proposal, identity, self.pending.values())
        else:
            source = self._duplicates.rejected(proposal)
        report: Report | None = None
        metrics: Mapping[str, float] = costs
        if known is not None:
            verdict = known
            report = self._free_report(proposal, costs) if costs else None
        elif source is not None and source not in self.pending:
            answer = self._duplicates.answer(proposal, source, costs)
            assert answer is not None  # of a trial that was told as complete
            verdict, metrics = answer
            report = self._free_report(proposal, metrics)
        else:
            at_once = source is None and all(
                trial.finished or trial.number in self._running for trial in self.pending.values()
            )
            at_once = at_once and len(self._running) < self.executor.slots
            verdict = Verdict(State.RUNNING if at_once else State.WAITING)
        tries = int(verdict.state == State.RUNNING and not self.executor.apart)
        trial = Trial(self.next, 0, proposal, identity, verdict, source, metrics, self.told)
        trial.tries, trial.begun = tries, tries > 0
        self._proposals.add(
            trial,
            Proposed(self.next, proposal, identity, verdict, source, report, self.told, self.environment, tries),
        )
        self.pending[self.next] = trial
        self.next += 1
        if verdict.state == State.RUNNING:
            self._submit(trial)

    def _before(self, arch: Architecture) -> tuple[Verdict | None, dict[str, float]]:
        """The verdict before evaluation. Its costs may need the network built."""
        if self.study.spec.evaluator.facts.looks_up or not self.verdicts.counts_costs:
            return self.verdicts.before(arch)
        found = self._workdirs.attempt(arch.key, lambda: self.verdicts.before(arch))
        if isinstance(found, int):
            return Verdict(State.FAILED, died(found, of="counting the costs of this candidate")), {}
        return found

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
        answer = self._duplicates.answer(trial.proposal, trial.reuses, trial.metrics)
        if answer is None:
            return False
        verdict, metrics = answer
        self.store.finish(trial.run, verdict, self._free_report(trial.proposal, metrics))
        trial.verdict, trial.metrics = verdict, metrics
        return True

    def _submit(self, trial: Trial) -> None:
        budget, target = self.spent.resolved(trial.proposal)
        trial.curve.clear()
        trial.last = None
        origin = self._workdirs.origin(trial.number, trial.proposal)
        workdir = self._workdirs.prepared(trial.number, trial.proposal)
        seed = derive(self.study.spec.seed, origin, "train")
        self._running.add(trial.number)
        self.listener(events.Started(TRIAL, trial.number, self.evaluated))
        keep = self._workdirs.keeps
        self.executor.submit(Job(trial.number, trial.proposal, budget, target, seed, workdir, trial.asked_after, keep))

    def _handle(self, event: executors.Event) -> None:
        trial = self.pending[event.number]
        if isinstance(event, executors.Reported):
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
        trial.several = trial.furthest > -math.inf
        trial.furthest = max(trial.furthest, report.step)
        target = self.spent.resolved(trial.proposal)[1]
        if report.step >= target:
            return  # the final report is committed together with the verdict
        if self._early_stopping.prunes(trial, report):
            self.executor.drop(trial.number)
            report = replace(report, metrics={**report.metrics, **trial.metrics})
            verdict = self.verdicts.after(report.metrics, report.seconds)
            if verdict.state == State.COMPLETE:
                verdict = replace(verdict, state=State.PRUNED, reason=f"pruned: at {report.step:g}")
            self._finish(trial, verdict, report)
            return
        self.store.report(trial.run, report, tries=1 if recovered else None)
        self.listener(events.Reported(TRIAL, trial.number, report, target))

    def _end(self, trial: Trial, failure: Failure | None) -> None:
        last, stored = trial.last, True
        if failure is not None and failure.rejected is not None:
            verdict = Verdict(State.REJECTED, failure.reason, seconds=failure.rejected)
        elif failure is not None:
            verdict = Verdict(State.FAILED, failure.reason, traceback=failure.traceback)
        elif last is None:
            verdict = Verdict(State.FAILED, "no-report: the evaluator ended without a report")
        else:
            last = replace(last, metrics={**last.metrics, **trial.metrics})
            verdict = self.verdicts.after(last.metrics, last.seconds)
            stored = False
        final = last is not None and last.step >= self.spent.resolved(trial.proposal)[1]
        self._finish(trial, verdict, last if final or not stored else None)

    def _finish(self, trial: Trial, verdict: Verdict, report: Report | None) -> None:
        """Commit the end of an evaluation; its files stay where its training may go on."""
        self.store.finish(trial.run, verdict, report)
        trial.verdict = verdict
        trial.metrics = trial.last.metrics if trial.last is not None else {}
        if report is not None:
            trial.metrics = report.metrics
            self._early_stopping.extend(trial, report)
        self._running.remove(trial.number)
        self._workdirs.release(trial.number, trial.proposal, verdict.state)

    def _tell(self, trial: Trial) -> None:
        """Tell the strategy; the commit follows with the next proposal, and a replay would do the same."""
        self._proposals.commit_told()
        self._snapshot()
        del self.pending[trial.number]
        verdict = trial.verdict
        outcome = trial.outcome()
        self._learn(trial.told(), trial.curve)
        if outcome.state == State.COMPLETE and not trial.several:
            self._duplicates.remember(trial.number, trial.metrics)
        self.executor.told(trial.number, trial.asked_after, verdict.seconds or 0.0)
        begun = time.perf_counter()
        self.strategy.tell(outcome)
        self._telling += time.perf_counter() - begun
        self._forget_weights()
        self._proposals.tell(trial, self.told)
        self.told += 1
        self._proposals.say(events.Finished(TRIAL, trial.number, verdict, trial.metrics, self.evaluated))

    def _learn(self, told: Told, curve: Curve) -> None:
        """What the loop itself remembers of an outcome."""
        self._workdirs.learn(told)
        again = self._duplicates.learn(told)
        self._history.learn(told, again=again)
        self._early_stopping.learn(told.state, curve)
        self.spent.learn(told)

    def _forget_weights(self) -> None:
        """Remove what trials have learned that no later one begins with."""
        donors = donors_of(self.strategy)
        if donors is not None:
            asked = (trial.proposal.transfer for trial in self.pending.values() if not trial.finished)
            wanted = {*donors, *self.pending, *(number for number in asked if number is not None)}
            self._workdirs.keep_weights_of(wanted)

    def _snapshot(self) -> None:
        """Store the strategy's state where telling it all again would take long; all that was told is committed."""
        since = self.told - self._kept
        due = self._telling >= SNAPSHOT_SECONDS or since >= max(SNAPSHOT_OUTCOMES, self.told * SNAPSHOT_SHARE)
        if due and isinstance(self.strategy, Snapshots):
            self._proposals.commit()
            self.store.save_snapshot(self.study, self.told, self.strategy.state_dict())
            self._telling, self._kept = 0.0, self.told

    def _free_report(self, proposal: Proposal, metrics: Mapping[str, float]) -> Report:
        return Report(self.spent.resolved(proposal)[1], metrics)

    def _replay(self) -> None:
        """Tell what had been told, in the recorded order, and put unfinished trials back to work."""
        found = Recorded(self.store, self.study, self._early_stopping.objective, self._workdirs)
        for told, curve, asked_after, seconds in found.told():
            self._learn(told, curve)
            self.executor.told(told.number, asked_after, seconds)
        self.told, self.next = found.count, found.next
        self._kept = restore(self.strategy, self.store, self.study, self.told)
        for outcome in found.after(self._kept):
            self.strategy.tell(outcome)
        self.pending = found.pending
        for trial in self.pending.values():
            if not trial.finished:
                trial.metrics = self.verdicts.before(trial.proposal.arch)[1]
        self._forget_weights()
        unfinished = [number for number, trial in self.pending.items() if not trial.finished]
        self._workdirs.sweep(unfinished, self.next)
