"""Train a study's supernet epoch by epoch, and derive architectures: the first job of a one-shot study.

After every epoch a checkpoint holds the strategy's whole state and all epochs so far. Who goes on from it reports them
again, and goes on bit for bit on a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.one_shot import OneShot, Progress
from nas_core.proposal import Proposal
from nas_core.records import SUPERNET, Epoch
from nas_core.seeds import derive
from studies.jobs.stored import WEIGHTS
from studies.records import StudySpec
from studies.setup.supernets import SupernetParts
from studies.store.store import Store
from training.evaluators.supernet import SPACE

FILE = "weights.safetensors"
DERIVED = "derived.json"


@dataclass(frozen=True)
class Supernet:
    """The training of a supernet (`nas_core.job.Job`). Nothing of the proposal is read: a supernet is trained for all
    architectures of its space."""

    parts: SupernetParts

    kind: ClassVar[str] = SUPERNET
    about: ClassVar[Mapping[str, Any]] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The rest is the study's."""
        return {"device": self.parts.compute.device, "threads": self.parts.threads}

    @property
    def steps(self) -> float:
        return float(self.parts.config.epochs)

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """A report per epoch (`epoch_of`). Raises InfeasibleError where nothing that satisfies the constraints was
        derived, MachineError where there is too little memory."""
        from strategies.one_shot import memory
        from training.threads import repeatable, thread_count

        parts = self.parts
        with thread_count(parts.threads), repeatable(parts.compute.device, parts.deterministic):
            strategy, data = parts.make_strategy(), parts.bind()
            one_path, largest = getattr(strategy, "one_path", False), getattr(strategy, "largest", None)
            make = parts.make_supernet
            if largest is not None:
                make = partial(make, largest(make))
            memory.require(make, data, one_path, parts.config.batch_size, parts.compute)
            yield from self._train(strategy, data, context)

    def result(self, workdir: Path) -> Result:
        derived = json.loads((workdir / DERIVED).read_text())
        return Result({WEIGHTS: workdir / FILE}, architectures=tuple(map(Architecture.from_json, derived)))

    def _train(self, strategy: OneShot, data: Data, context: Context) -> Iterator[Report]:
        from nas_core.files import write_atomically
        from training.checkpoint import write_tensors
        from training.fit import trial_failures

        parts, folder = self.parts, context.workdir
        with trial_failures(), self._seeded(context, "start"):
            strategy.start(parts.make_supernet, data, parts.compute)
        epochs, finished = _resume(strategy, folder)
        yield from map(_reported, epochs)
        before, begun = epochs[-1].seconds if epochs else 0.0, time.monotonic()
        while not finished and len(epochs) < parts.config.epochs:
            with trial_failures(), self._seeded(context, len(epochs)):
                progress = strategy.step(len(epochs))
            finished = progress.done
            epochs.append(_epoch(strategy, progress, len(epochs) + 1, before + time.monotonic() - begun))
            _save(strategy, folder, epochs, finished)
            yield _reported(epochs[-1])
        with trial_failures(), self._seeded(context, "result"):
            result = strategy.result()
        space = getattr(strategy.supernet, "space", parts.setting.space)
        write_tensors(folder / FILE, strategy.supernet.state_dict(), {SPACE: space.name})
        write_atomically(folder / DERIVED, json.dumps([arch.to_json() for arch in result]).encode())

    @contextmanager
    def _seeded(self, context: Context, purpose: int | str) -> Iterator[None]:
        """Torch's generators as (seed, purpose) make them, and as they were afterwards."""
        import torch

        from training.fit import seed_torch

        device = torch.device(self.parts.compute.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_torch(derive(context.seed, purpose, "one-shot"), device)
            yield


def opened(store: Callable[[], Store], spec: StudySpec, settings: Mapping[str, Any]) -> Supernet:
    """The training of a study's supernet on the device that is named. It needs no store. Raises UsageError where space
    or data are not what they were."""
    from studies.setup.assemble import build

    assert spec.supernet is not None
    here = spec.supernet.model_copy(update={"device": settings["device"]})
    parts = build(spec.model_copy(update={"supernet": here})).supernet
    assert parts is not None
    return Supernet(parts)


def epoch_of(report: Report) -> Epoch:
    """What a report of this job says."""
    assert report.detail is not None
    arch, strengths = report.detail["arch"], report.detail["strengths"]
    return Epoch(
        int(report.step),
        None if arch is None else Architecture.from_json(arch),
        report.metrics,
        {name: tuple(weights) for name, weights in strengths.items()},
        report.seconds,
    )


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


def _epoch(strategy: OneShot, progress: Progress, number: int, seconds: float) -> Epoch:
    counts = {} if progress.arch is None else simple_operations(strategy, progress.arch)
    return Epoch(number, progress.arch, {**progress.metrics, **counts}, progress.strengths, seconds)


def _reported(epoch: Epoch) -> Report:
    """An epoch as `epoch_of` reads it."""
    detail = {
        "arch": None if epoch.arch is None else epoch.arch.to_json(),
        "strengths": {name: list(weights) for name, weights in epoch.strengths.items()},
    }
    return Report(epoch.number, epoch.metrics, epoch.seconds, detail)


def _save(strategy: OneShot, folder: Path, epochs: Sequence[Epoch], finished: bool) -> None:
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
    checkpoint.save(folder, checkpoint.Checkpoint(len(epochs), tensors, state))


def _resume(strategy: OneShot, folder: Path) -> tuple[list[Epoch], bool]:
    """Take up the newest checkpoint: its epochs, and whether the strategy had finished."""
    from training import checkpoint

    found = checkpoint.load(folder)
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
