"""The one-shot loop: have a supernet trained, derive architectures, hand them to the black-box loop.

The training is a job (`studies/jobs/supernet.py`), here or in a worker; what an epoch came to is committed as it is
reported. What is derived becomes the trials of the study, evaluated like those of any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import InfeasibleError, NasError, NotFoundError, UsageError
from nas_core.failures import ATTEMPTS, Failure, died
from nas_core.job import Job
from nas_core.records import Epoch
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from studies import executors
from studies.events import EpochEnded, Listener, silent
from studies.executors import Begun, Died, Ended, Executor, Halted, Reported
from studies.jobs.stored import WEIGHTS, tidy
from studies.jobs.supernet import DERIVED, epoch_of
from studies.records import Study, final_size_of
from studies.search.endings import Ending
from studies.setup.assemble import StudyObjects
from studies.store import supernets
from studies.store.store import Store
from training.evaluators.settings import Shared

FOLDER = "supernet"


class Derived:
    """A black-box strategy that proposes what a one-shot strategy has derived, best first."""

    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, setting: Setting, config: Any) -> None:
        self._archs: tuple[Architecture, ...] = tuple(config)

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        if number >= len(self._archs):
            raise Exhausted
        return Proposal(self._archs[number])

    def tell(self, outcome: Outcome) -> None: ...


def derived(store: Store, study: Study, parts: StudyObjects) -> StudyObjects:
    """The parts of a study whose candidates are what its supernet's training derived; others as they are.

    Raises NotFoundError while the training is not complete.
    """
    if parts.supernet is None:
        return parts
    run = supernets.find(store, study)
    if run is None or run.result is None:
        raise NotFoundError(f"the supernet of study '{study.name}' is not trained yet; nas resume {study.name}")
    archs = run.result

    def make(setting: Setting, config: Any) -> Derived:
        return Derived(setting, archs)

    return replace(parts, strategy=make)


def weights_of(store: Store, study: Study) -> Path:
    """The file of the study's trained supernet. Raises UsageError for a study without one, NotFoundError before."""
    if study.spec.supernet is None:
        raise UsageError(f"study '{study.name}' has no supernet: its strategy is '{study.spec.strategy}'")
    run = supernets.find(store, study)
    if run is None or run.weights is None:
        raise NotFoundError(f"the supernet of study '{study.name}' is not trained yet; nas resume {study.name}")
    return run.weights


def shared(store: Store, study: Study) -> Shared:
    """The trained supernet of a study, to evaluate candidates with. Raises as `weights_of`."""
    weights, found, spec = weights_of(store, study), supernets.find(store, study), study.spec
    assert found is not None
    assert spec.supernet is not None
    trained = spec.supernet
    return Shared(
        study=study.name,
        space=spec.space,
        space_hash=spec.space_hash,
        size=spec.size,
        final_size=final_size_of(spec),
        task=spec.task,
        data=trained.data,
        split=trained.split,
        split_hash=trained.split_hash,
        device=trained.device,
        precision=trained.precision,
        threads=trained.threads,
        deterministic=trained.deterministic,
        weights=str(weights.resolve()),
        sha256=str(found.sha256),
    )


class SupernetTraining:
    """The training of one study's supernet, as a job of the executor that `make` makes where there is something to do.

    `stopping()` is asked after every epoch: once it is true the training stops with everything stored.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        job: Job,
        make: Callable[[], Executor],
        *,
        listener: Listener = silent,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
    ) -> None:
        self.store, self.study, self.job, self.make = store, study, job, make
        self.listener = listener
        self.stopping = stopping
        self.environment = environment
        self.folder = store.folder(study) / FOLDER
        self._tries = 0  # attempts begun since the last new epoch
        self._counted = False  # the attempt that runs is one of them
        self._known = 0  # epochs that any attempt has come to
        self._seconds = 0.0  # that those have taken which the attempt that runs has come to

    def run(self, seconds: float | None = None) -> Ending | None:
        """Train to the end and store the weights and what is derived; None then, or why it stopped before.

        Raises InfeasibleError where nothing that satisfies the constraints was derived, NasError where the training
        failed; the store says so too.
        """
        found = supernets.find(self.store, self.study)
        if found is None or found.state != State.COMPLETE:
            self._tries = 0 if found is None else found.tries
            self._known = supernets.epoch_count(self.store, self.study)
            ending = self._train(None if seconds is None else time.monotonic() + seconds)
            if ending is not None:
                return ending
        tidy(self.folder)
        (self.folder / DERIVED).unlink(missing_ok=True)
        return None

    def _train(self, deadline: float | None) -> Ending | None:
        def late() -> bool:
            return deadline is not None and time.monotonic() >= deadline

        if self._tries >= ATTEMPTS:
            raise self._failed(Failure(died(self._tries, of="it")))
        if late():
            return Ending.TIME
        executor = self.make()
        try:
            self._start(executor)
            while True:
                match executor.next(lambda: self.stopping() or late()):
                    case Begun():
                        self._tries, self._counted = self._tries + 1, True
                        supernets.count_tries(self.store, self.study, self._tries)
                    case Reported(_, report):
                        self._report(epoch_of(report))
                    case Halted():
                        return Ending.INTERRUPTED if self.stopping() else Ending.TIME
                    case Died(_, cause):
                        self._counted = False
                        if self._tries >= ATTEMPTS:
                            raise self._failed(Failure(died(self._tries, cause, "it")))
                        self._start(executor)
                    case Ended(_, failure):
                        self._counted = False
                        if failure is not None:
                            raise self._failed(failure)
                        self._finish()
                        return None
        except InfeasibleError as error:
            supernets.fail(self.store, self.study, str(error))
            self._counted = False
            raise
        finally:
            executor.close()
            if self._counted:
                self._stopped()

    def _start(self, executor: Executor) -> None:
        self._counted = not executor.apart
        self._tries += self._counted
        supernets.start(self.store, self.study, self.environment, self._tries)
        spec = self.study.spec
        every = Proposal(Architecture(spec.space_name, {}))  # no choice is made
        executor.submit(executors.Job(0, every, None, self.job.steps, spec.seed, self.folder, 0))

    def _report(self, epoch: Epoch) -> None:
        """Store an epoch. Those that a checkpoint has brought are reported again, and the last of them is heard of."""
        new, last = epoch.number > self._known, epoch.number == self._known
        self._tries = 1 if new else self._tries
        supernets.save_epochs(self.store, self.study, [epoch], again=not new)
        self._known, self._seconds = max(self._known, epoch.number), epoch.seconds
        if new or last:
            self.listener(EpochEnded(epoch, int(self.job.steps)))

    def _finish(self) -> None:
        result = self.job.result(self.folder)
        supernets.finish(self.store, self.study, result.architectures, result.files[WEIGHTS], self._seconds)

    def _failed(self, failure: Failure) -> NasError:
        """Commit that it cannot go on, and how that is said."""
        supernets.fail(self.store, self.study, failure.reason, failure.traceback)
        return NasError(f"the supernet of study '{self.study.name}' failed: {failure.reason}")

    def _stopped(self) -> None:
        """This attempt was stopped in good order: it does not count."""
        supernets.count_tries(self.store, self.study, self._tries - 1)
