"""The one driver of all work on a run's network: training, compression, whatever else is a job.

Find a run with the same settings, or propose one; start, report, finish, record its files. Every step is committed
before it is heard of, so a process that is killed at any moment leaves a run that goes on from its checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import UsageError
from nas_core.evaluation import Report
from nas_core.failures import ATTEMPTS, Failure, died
from nas_core.job import Job
from nas_core.records import COMPRESS, RETRAIN, Run, Verdict
from nas_core.strategy import State
from studies import events, executors
from studies.events import Listener, silent
from studies.executors import Begun, Died, Ended, Executor, Halted, Reported
from studies.executors.attempts import Attempts
from studies.jobs.stored import seed_of, settings_of, tidy, weights_of
from studies.records import Study
from studies.store.store import Store

NAMES = {RETRAIN: "training", COMPRESS: "compression"}
"""What a run of a kind is called."""


@dataclass(slots=True)
class _Running:
    """A run that the executor has."""

    attempts: Attempts
    folder: Path
    begun: float = 0.0  # when this attempt was started


class Driver:
    """Work on one trial of a study by this process, on as many repeats at a time as the executor has room for.

    `parent` is the run whose network the job works on: the trial itself, or a run that belongs to it. Stops early, with
    everything stored, when `stopping()` becomes true.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        trial: Run,
        job: Job,
        executor: Executor,
        *,
        parent: Run | None = None,
        listener: Listener = silent,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
    ) -> None:
        self.store, self.study, self.trial, self.job, self.executor = store, study, trial, job, executor
        self.parent = parent or trial
        self.listener = listener
        self.stopping = stopping
        self.environment = environment
        self._running: dict[int, _Running] = {}

    def run(self, repeats: Sequence[int]) -> list[Run]:
        """The ended runs with these seeds' numbers, in their order; fewer where it was stopped, or where one failed:
        after that none is begun. One that is complete with its files is not done again."""
        waiting, ended = list(repeats), dict[int, Run]()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.executor.slots and not self._failed(ended):
                    repeat = waiting.pop(0)
                    done = self._begin(repeat)
                    if done is not None:
                        ended[repeat] = done
                if not self._running:
                    break
                if self._handle(ended):
                    waiting.clear()
        except UsageError as error:  # what was asked for cannot be done: no attempt would come to another end
            for number in list(self._running):
                self._finish(number, Failure(f"refused: {error}"))
            raise
        finally:
            self.executor.close()
            for number in list(self._running):
                self._halt(number)
        return [ended[repeat] for repeat in repeats if repeat in ended]

    def _failed(self, ended: dict[int, Run]) -> bool:
        return any(run.state == State.FAILED for run in ended.values())

    def _begin(self, repeat: int) -> Run | None:
        """Start the run of a repeat; the run itself where there is nothing to do any more."""
        run = self._find(repeat)
        if run is not None and run.state == State.COMPLETE and weights_of(self.store, run) is not None:
            tidy(self.store.folder(self.study, run))
            return run
        if run is None:
            run = self._propose(repeat)
        if run.tries >= ATTEMPTS:
            self.store.finish(run.id, Verdict(State.FAILED, died(run.tries, of=f"this {self._word}")))
            return self._again(run)
        self._running[repeat] = _Running(Attempts.of(self.store, run), self.store.folder(self.study, run))
        self._start(repeat)
        return None

    def _start(self, repeat: int) -> None:
        running = self._running[repeat]
        running.begun = time.monotonic()
        running.attempts.start(self.store, self.executor.apart, self.environment)
        self.listener(events.Started(self.job.kind, running.attempts.run.number))
        seed = seed_of(self.study, self.trial, self.job.kind, repeat)
        work = executors.Job(repeat, self.trial.proposal, None, self.job.steps, seed, running.folder, 0)
        self.executor.submit(work)

    def _handle(self, ended: dict[int, Run]) -> bool:
        """Hear what happens next; whether the search for more to do is over."""
        event = self.executor.next(self.stopping)
        running = self._running[event.number]
        match event:
            case Begun():
                running.attempts.begun(self.store)
            case Reported(_, report):
                self._report(running, report)
            case Halted(number):
                self._halt(number)
                return True
            case Died(number, cause):
                tries = running.attempts.tries
                if tries < ATTEMPTS:
                    self._start(number)
                else:
                    ended[number] = self._finish(number, Failure(died(tries, cause, f"this {self._word}")))
            case Ended(number, failure):
                ended[number] = self._finish(number, failure)
        return False

    def _report(self, running: _Running, report: Report) -> None:
        run = running.attempts.run
        self.store.report(run.id, report, tries=running.attempts.reported(report))
        self.listener(events.Reported(self.job.kind, run.number, report, self.job.steps))

    def _finish(self, number: int, failure: Failure | None) -> Run:
        """Commit how a run has ended, with its files."""
        running = self._running[number]
        run, last, seconds = running.attempts.run, running.attempts.last, time.monotonic() - running.begun
        if failure is not None:
            verdict = Verdict(State.FAILED, failure.reason, seconds=seconds, traceback=failure.traceback)
            self.store.finish(run.id, verdict)
        else:
            assert last is not None
            result = self.job.result(running.folder)
            for kind, path in result.files.items():
                self.store.add_artifact(run, kind, path)
            self.store.finish(run.id, Verdict(State.COMPLETE, seconds=last.seconds), changes=result.changes)
        del self._running[number]
        tidy(running.folder)
        done = self._again(run)
        self.listener(events.Finished(done.kind, done.number, done.verdict, done.metrics))
        return done

    def _halt(self, number: int) -> None:
        """An attempt was stopped in good order: it does not count."""
        self._running.pop(number).attempts.halted(self.store)

    def _propose(self, repeat: int) -> Run:
        kind, proposal = self.job.kind, self.trial.proposal
        self.store.propose(
            *(self.study, len(self.store.below(self.trial, kind)) + 1, proposal, self.trial.identity),
            Verdict(State.WAITING),
            kind=kind,
            parent=self.parent.id,
            repeat=repeat,
            recipe={**self.job.settings, **self.job.about},
        )
        return self.store.below(self.trial, kind)[-1]

    def _find(self, repeat: int) -> Run | None:
        """The first run with the same settings that has not failed."""
        wanted = json.loads(json.dumps(dict(self.job.settings)))
        for run in self.store.children(self.parent, self.job.kind):
            if run.repeat == repeat and settings_of(run) == wanted and run.state != State.FAILED:
                return run
        return None

    def _again(self, run: Run) -> Run:
        """The run as it is stored now."""
        return next(one for one in self.store.below(self.trial, self.job.kind) if one.id == run.id)

    @property
    def _word(self) -> str:
        return NAMES.get(self.job.kind, self.job.kind)
