"""Known architectures that a study's results are compared with: evaluated as its candidates are, and told to nobody.

They are runs of a kind of their own, stored with the study, so a search is the same with and without them. Each has the
seed that its architecture gives it, whatever the order in which they are named.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from nas_core.evaluation import Report
from nas_core.failures import ATTEMPTS, Failure, died
from nas_core.records import BASELINE, Run, Verdict
from nas_core.seeds import derive
from nas_core.strategy import State
from studies import events, executors
from studies.events import Listener
from studies.executors import Begun, Died, Ended, Executor, Halted, Job
from studies.executors.attempts import Attempts
from studies.records import Study
from studies.search.budget import SpentBudget
from studies.search.endings import Ending
from studies.search.verdicts import Verdicts
from studies.setup.assemble import StudyObjects
from studies.store.store import Store


@dataclass(slots=True)
class _Running:
    """A run that the executor has."""

    attempts: Attempts
    costs: dict[str, float]  # that the study's objectives and constraints name

    @property
    def run(self) -> Run:
        return self.attempts.run


class Baselines:
    """The evaluation of a study's baselines by this process. Whether constraints hold does not matter."""

    def __init__(
        self,
        store: Store,
        study: Study,
        parts: StudyObjects,
        executor: Executor,
        *,
        listener: Listener = events.silent,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
    ) -> None:
        self.store, self.study, self.parts, self.executor = store, study, parts, executor
        self.listener, self.stopping, self.environment = listener, stopping, environment
        self.verdicts, self._budgets = Verdicts(parts), SpentBudget(parts)
        self._running: dict[int, _Running] = {}
        self._counted: int | None = None  # that the listener has heard of

    def run(self, deadline: float | None = None) -> Ending | None:
        """Evaluate those that have not ended; None: all have, or why it stopped before (`deadline` in
        time.monotonic() seconds)."""
        every = self.store.runs(self.study, BASELINE)
        waiting = [run for run in every if not run.finished]
        self._count(every, waiting)

        def stopping() -> bool:
            return self.stopping() or (deadline is not None and time.monotonic() >= deadline)

        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.executor.slots and not stopping():
                    self._begin(waiting.pop(0))
                if not self._running:
                    if stopping():
                        break
                    continue
                self._handle(self.executor.next(stopping))
                self._count(every, waiting)
        finally:
            self.executor.close()
            for number in list(self._running):
                self._halt(number)
        if all(run.finished for run in self.store.runs(self.study, BASELINE)):
            return None
        return Ending.INTERRUPTED if self.stopping() else Ending.TIME

    def _count(self, every: list[Run], waiting: list[Run]) -> None:
        done = len(every) - len(waiting) - len(self._running)
        if done != self._counted:
            self._counted = done
            self.listener(events.Counted(done, len(every)))

    def _begin(self, run: Run) -> None:
        known, costs = self.verdicts.before(run.proposal.arch)
        self._running[run.number] = running = _Running(Attempts.of(self.store, run), costs)
        if known is not None and not known.violations:  # illegal, unsound, or it cannot be built
            self._finish(running, known, None)
        elif run.tries >= ATTEMPTS:
            self._finish(running, Verdict(State.FAILED, died(run.tries, of="this baseline")), None)
        else:
            self._start(running)

    def _start(self, running: _Running) -> None:
        run = running.run
        running.attempts.start(self.store, self.executor.apart, self.environment)
        self.listener(events.Started(BASELINE, run.number))
        budget, target = self._budgets.resolved(run.proposal)
        seed = derive(self.study.spec.seed, run.arch.key, "baseline")
        self.executor.submit(
            Job(run.number, run.proposal, budget, target, seed, self.store.folder(self.study, run), asked_after=0)
        )

    def _handle(self, event: executors.Event) -> None:
        running = self._running[event.number]
        match event:
            case Begun():
                running.attempts.begun(self.store)
            case executors.Reported(_, report):
                self._report(running, report)
            case Halted(number):
                self._halt(number)
            case Died(_, cause):
                tries = running.attempts.tries
                if tries < ATTEMPTS:
                    self._start(running)
                else:
                    self._end(running, Failure(died(tries, cause, "this baseline")))
            case Ended(_, failure):
                self._end(running, failure)

    def _report(self, running: _Running, report: Report) -> None:
        tries = running.attempts.reported(report)
        target = self._budgets.resolved(running.run.proposal)[1]
        if report.step < target:  # the last one is committed together with the verdict
            self.store.report(running.run.id, report, tries=tries)
            self.listener(events.Reported(BASELINE, running.run.number, report, target))

    def _end(self, running: _Running, failure: Failure | None) -> None:
        last = running.attempts.last
        if failure is not None:
            rejected = failure.rejected is not None
            state = State.REJECTED if rejected else State.FAILED
            self._finish(running, Verdict(state, failure.reason, seconds=failure.rejected), last if rejected else None)
        elif last is None:
            self._finish(running, Verdict(State.FAILED, "no-report: the evaluator ended without a report"), None)
        else:
            report = replace(last, metrics={**last.metrics, **running.costs})
            self._finish(running, self.verdicts.after(report.metrics, report.seconds), report)

    def _finish(self, running: _Running, verdict: Verdict, report: Report | None) -> None:
        run = running.run
        self.store.finish(run.id, verdict, report)
        del self._running[run.number]
        shutil.rmtree(self.store.folder(self.study, run), ignore_errors=True)
        self.listener(events.Finished(BASELINE, run.number, verdict, {} if report is None else report.metrics))

    def _halt(self, number: int) -> None:
        """An attempt was stopped in good order: it does not count."""
        self._running.pop(number).attempts.halted(self.store)
