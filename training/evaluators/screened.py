"""Screens before and while candidates are trained: those that are turned down are rejected, not failed."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nas_core.errors import Rejected, UsageError
from nas_core.evaluation import Budget, Context, Evaluator, Report
from nas_core.strategy import Proposal
from training.evaluators.kinds import opened
from training.evaluators.settings import Facts, Opened, Problem, Request, Settled
from training.evaluators.train import check_files
from training.evaluators.wrapping import WrapperOptions, WrapperSettings
from training.screens import Screen, load_screens

if TYPE_CHECKING:
    from torch import nn

    from nas_core.architecture import Architecture
    from nas_core.batch import Batch
    from training.fit import Training


class ScreenedSettings(WrapperSettings):
    """The evaluator of `inner` with screens before it; `hashes` are those of the files that they come from."""

    kind: Literal["screened"] = "screened"
    screens: tuple[str, ...] = Field(min_length=1)
    hashes: dict[str, str] = Field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        inner = self.inner.facts
        return replace(inner, files={**inner.files, **self.hashes}, screens=self.screens)


class ScreenedOptions(WrapperOptions):
    """What a configuration asks of screens."""

    kind: Literal["screened"] = "screened"
    screens: tuple[str, ...] = Field(min_length=1, description="finite, blind, quality, stability, or FILE.py:FUNCTION")

    def settle(self, request: Request) -> Settled:
        """Raises UsageError for an evaluator that trains no network."""
        settings, evaluator, read = self.inner.settle(request)
        if not settings.facts.trains:
            raise UsageError(
                f"--screen {self.screens[0]} looks at networks that are trained, and evaluator '{settings.kind}' "
                "trains none; leave it out"
            )
        screens = load_screens(self.screens)
        hashes = {screen.reference: screen.file_hash for screen in screens if screen.file_hash is not None}
        outer = ScreenedSettings(inner=settings, screens=self.screens, hashes=hashes)
        return Settled(outer, Screened(evaluator, screens), read)


class Screened:
    """An evaluator whose networks screens look at (`training.screens`). In all else it is that evaluator.

    `evaluate` raises Rejected, with the reason of the first screen that turns a network down.
    """

    Settings = ScreenedSettings
    Options = ScreenedOptions

    @classmethod
    def open(cls, settings: ScreenedSettings, problem: Problem) -> Opened:
        """Raises like `load_screens` and the inner evaluator, and UsageError where a user's file has changed."""
        inner, screens = opened(settings.inner, problem), load_screens(settings.screens)
        check_files(settings.hashes, {screen.reference: screen.file_hash or "" for screen in screens})
        return Opened(cls(inner.evaluator, screens), inner.read)

    def __init__(self, evaluator: Any, screens: Sequence[Screen]) -> None:
        """`evaluator`: one that has `made`, `trained`, `computing`, `data` and `of` as
        `training.evaluators.train.Train`. Raises UsageError for a screen that cannot look at its task."""
        self._evaluator = evaluator
        for screen in screens:
            screen.check(evaluator.task)
        self._before = [screen for screen in screens if not screen.learned]
        self._after = [screen for screen in screens if screen.learned]
        inner: Evaluator = evaluator
        self.metrics, self.fidelity = inner.metrics, inner.fidelity
        self.deterministic, self.in_process = inner.deterministic, inner.in_process

    def __getattr__(self, name: str) -> Any:
        """What else an evaluator has, such as its task or its device."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._evaluator, name)

    def identity(self, arch: Architecture) -> str | None:
        answer: str | None = self._evaluator.identity(arch)
        return answer

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        answer: Mapping[str, float] = self._evaluator.costs(arch, names)
        return answer

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """The inner evaluator's reports. What screens have passed before a checkpoint is not looked at again."""
        yield from self.trained(self.passed(proposal, context), proposal, budget, context)

    def passed(self, proposal: Proposal, context: Context) -> nn.Module:
        """The network before its first step, which the screens that look at that one have let pass."""
        begun = time.monotonic()
        model: nn.Module = self._evaluator.made(proposal.arch, context.seed)
        if checkpointed(context.workdir) is None:
            self._look(self._before, model, proposal.arch, begun, context.deadline)
        return model

    def trained(
        self, model: nn.Module, proposal: Proposal, budget: Budget | None, context: Context
    ) -> Generator[Report, None, None]:
        """The inner evaluator's reports for that network, with the screens that look at what is trained."""
        passed = checkpointed(context.workdir)
        with closing(self._evaluator.trained(model, proposal, budget, context)) as reports:
            for report in reports:
                yield report
                if report.step >= (passed or 0):
                    since = time.monotonic() - report.seconds
                    found = {"epoch": report.step, "report": report.metrics}
                    self._look(self._after, model, proposal.arch, since, context.deadline, **found)

    def _look(
        self,
        screens: Sequence[Screen],
        model: nn.Module,
        arch: Architecture,
        begun: float,
        deadline: float | None,
        **seen: Any,
    ) -> None:
        """Raises Rejected; `begun` is when the candidate's time began, in time.monotonic() seconds."""
        inner = self._evaluator
        training = partial(self._training, arch=arch, deadline=deadline)
        given = {"task": inner.task, "arch": arch, "training": training, **seen}
        for screen in screens:
            with inner.computing():
                reason = screen.reason(model, inner.device, batch=self._batch, **given)
            if reason is not None:
                word, _, what = (part.strip() for part in reason.partition(":"))
                raise Rejected(word, what or f"screen {screen.reference}", time.monotonic() - begun)

    def _training(self, network: nn.Module, arch: Architecture, deadline: float | None) -> Training:
        """That of the architecture's own recipe; a regime has nothing to do with networks that are not trained."""
        from training.fit import Training

        inner = self._evaluator.of(arch)
        return Training(network, inner.data, inner.recipe.ordinary, inner.device, 0, deadline)

    @cached_property
    def _batch(self) -> Batch:
        batch: Batch = next(iter(self._evaluator.data.batches("train", 0, 0)))
        return batch


def checkpointed(workdir: Path) -> int | None:
    """The epoch of the newest checkpoint in a candidate's folder; None: there is none."""
    epochs = [path.stem.rpartition("-")[2] for path in workdir.glob("checkpoint-*.json")]
    return max((int(epoch) for epoch in epochs if epoch.isdecimal()), default=None)
