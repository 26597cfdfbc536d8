"""The one-shot loop: train a supernet epoch by epoch, derive architectures, hand them to the black-box loop.

After every epoch a checkpoint holds the strategy's whole state and all epochs so far, and the store what the epoch came
to; a resumed search goes on from there, bit for bit on a CPU. What is derived becomes the trials of the study,
evaluated like those of any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.config import Config as BaseConfig
from nas_core.errors import InfeasibleError, NasError, NotFoundError, TrialError, UsageError
from nas_core.failures import ATTEMPTS, died, failure
from nas_core.one_shot import OneShot, Progress
from nas_core.records import Epoch
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from studies.events import EpochEnded, Listener, silent
from studies.records import Study, final_size_of
from studies.search.endings import Ending
from studies.setup.assemble import StudyObjects
from studies.setup.supernets import SupernetParts
from studies.store import supernets
from studies.store.store import Store
from training.evaluators.settings import Shared

FOLDER = "supernet"
WEIGHTS = "weights.safetensors"


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
    """The training of one study's supernet by this process.

    `stopping()` is asked after every epoch: once it is true the training stops with everything stored.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        parts: SupernetParts,
        *,
        listener: Listener = silent,
        stopping: Callable[[], bool] = lambda: False,
        environment: int | None = None,
    ) -> None:
        self.store, self.study, self.parts = store, study, parts
        self.listener = listener
        self.stopping = stopping
        self.environment = environment
        self.folder = store.folder(study) / FOLDER

    def run(self, seconds: float | None = None) -> Ending | None:
        """Train to the end and store the weights and what is derived; None then, or why it stopped before.

        Raises InfeasibleError where nothing that satisfies the constraints was derived, NasError where the training
        failed; the store says so too.
        """
        from training.threads import repeatable, thread_count

        found = supernets.find(self.store, self.study)
        if found is None or found.state != State.COMPLETE:
            deadline = None if seconds is None else time.monotonic() + seconds
            compute = self.parts.compute
            with thread_count(self.parts.threads), repeatable(compute.device, self.parts.deterministic):
                ending = self._try(deadline)
            if ending is not None:
                return ending
        for path in self.folder.glob("checkpoint-*"):  # of no use any more
            path.unlink()
        return None

    def _try(self, deadline: float | None) -> Ending | None:
        from strategies.one_shot import memory

        strategy, data = self.parts.make_strategy(), self.parts.bind()
        one_path = getattr(strategy, "one_path", False)
        memory.require(self.parts.make_supernet, data, one_path, self.parts.config.batch_size, self.parts.compute)
        found = supernets.find(self.store, self.study)
        tries = 0 if found is None else found.tries
        if tries >= ATTEMPTS:
            reason = died(tries, of="it")
            supernets.fail(self.store, self.study, reason)
            raise NasError(f"the supernet of study '{self.study.name}' failed: {reason}")
        supernets.start(self.store, self.study, self.environment, tries + 1)
        try:
            ending = self._train(strategy, data, deadline)
        except (TrialError, InfeasibleError) as error:
            failed = failure(error)
            supernets.fail(self.store, self.study, str(error), failed.traceback)
            if isinstance(error, InfeasibleError):
                raise
            raise NasError(f"the supernet of study '{self.study.name}' failed: {error}") from error
        except BaseException:
            self._stopped()
            raise
        if ending is not None:
            self._stopped()
        return ending

    def _stopped(self) -> None:
        """This attempt was stopped in good order: it does not count."""
        found = supernets.find(self.store, self.study)
        if found is not None and found.tries:
            supernets.count_tries(self.store, self.study, found.tries - 1)

    def _train(self, strategy: OneShot, data: Data, deadline: float | None) -> Ending | None:
        from training.checkpoint import write_tensors
        from training.fit import trial_failures

        total = self.parts.config.epochs
        with trial_failures(), self._seeded("start"):
            strategy.start(self.parts.make_supernet, data, self.parts.compute)
        epochs, finished = self._resume(strategy)
        if epochs:
            supernets.save_epochs(self.store, self.study, epochs, again=True)
            self.listener(EpochEnded(epochs[-1], total))
        before = epochs[-1].seconds if epochs else 0.0
        begun = time.monotonic()
        while not finished and len(epochs) < total:
            if self.stopping():
                return Ending.INTERRUPTED
            if deadline is not None and time.monotonic() >= deadline:
                return Ending.TIME
            with trial_failures(), self._seeded(len(epochs)):
                progress = strategy.step(len(epochs))
            finished = progress.done
            epochs.append(self._epoch(strategy, progress, len(epochs) + 1, before + time.monotonic() - begun))
            self._save(strategy, epochs, finished)
            supernets.save_epochs(self.store, self.study, epochs[-1:])
            self.listener(EpochEnded(epochs[-1], total))
        with trial_failures(), self._seeded("result"):
            result = strategy.result()
        write_tensors(self.folder / WEIGHTS, strategy.supernet.state_dict())
        seconds = epochs[-1].seconds if epochs else 0.0
        supernets.finish(self.store, self.study, result, self.folder / WEIGHTS, seconds)
        return None

    @contextmanager
    def _seeded(self, purpose: int | str) -> Iterator[None]:
        """Torch's generators as (seed, purpose) make them, and as they were afterwards."""
        import torch

        from training.fit import seed_torch

        device = torch.device(self.parts.compute.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_torch(derive(self.study.spec.seed, purpose, "one-shot"), device)
            yield

    def _epoch(self, strategy: OneShot, progress: Progress, number: int, seconds: float) -> Epoch:
        counts = {} if progress.arch is None else simple_operations(strategy, progress.arch)
        return Epoch(number, progress.arch, {**progress.metrics, **counts}, progress.strengths, seconds)

    def _save(self, strategy: OneShot, epochs: Sequence[Epoch], finished: bool) -> None:
        from training import checkpoint

        tensors, plain = checkpoint.pack(strategy.state_dict())
        state = {
            "strategy": plain,
            "finished": finished,
            "epochs": [
                [
                    epoch.number,
                    None if epoch.arch is None else epoch.arch.to_json(),
                    dict(epoch.metrics),
                    {name: list(weights) for name, weights in epoch.strengths.items()},
                    epoch.seconds,
                ]
                for epoch in epochs
            ],
        }
        checkpoint.save(self.folder, checkpoint.Checkpoint(len(epochs), tensors, state))

    def _resume(self, strategy: OneShot) -> tuple[list[Epoch], bool]:
        """Take up the newest checkpoint: its epochs, and whether the strategy had finished."""
        from training import checkpoint

        found = checkpoint.load(self.folder)
        if found is None:
            return [], False
        strategy.load_state_dict(checkpoint.unpack(found.tensors, found.state["strategy"]))
        epochs = [
            Epoch(
                number,
                None if arch is None else Architecture.from_json(arch),
                metrics,
                {name: tuple(weights) for name, weights in strengths.items()},
                seconds,
            )
            for number, arch, metrics, strengths, seconds in found.state["epochs"]
        ]
        return epochs, found.state["finished"]


def simple_operations(strategy: OneShot, arch: Architecture) -> dict[str, float]:
    """How far a derived architecture has collapsed: its operations that have no parameters, and its skips, each as a
    share of all operations that it takes (an operation that several cells share counts once)."""
    supernet: Any = strategy.supernet
    assignment = supernet.space.assignment(arch)
    taken = [
        (group, group.options.index(assignment[name]))
        for name, group in supernet.groups.items()
        if any(group.weighted) and assignment[name] is not None
    ]
    count = max(len(taken), 1)
    free = sum(not group.weighted[position] for group, position in taken)
    skips = sum(group.skip[position] for group, position in taken)
    return {"parameter_free": free / count, "skips": skips / count}
