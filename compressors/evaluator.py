"""Candidates that are trained, made smaller by a compression method and trained again: what is left is judged."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from compressors.compressor import Change, Compressor, HasRegime, Subject
from compressors.methods import METHOD, costs_of, file_hash, method, recalibrated
from compressors.target import parse_targets
from nas_core.config import validate
from nas_core.errors import Rejected, UsageError, VerificationError
from nas_core.evaluation import Budget, Context, Fidelity, Report
from nas_core.frozen import JsonObject
from nas_core.strategy import Proposal
from training.evaluators.kinds import opened
from training.evaluators.settings import Facts, Opened, Problem, Request, Settled
from training.evaluators.train import Train, check_files
from training.evaluators.wrapping import WrapperOptions, WrapperSettings
from training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from nas_core.architecture import Architecture

BASE = "base_"
"""What the name of a metric begins with that is of the network before."""
COSTS = ("params", "macs")
SEEN = 4  # samples that methods look at a network with


class CompressedSettings(WrapperSettings):
    """The trainings of `inner`, each followed by the compression method `compress` with `compress_settings` down to
    `compress_to`, and a training of `compress_epochs`. `hashes`: of the user's file that the method is in."""

    kind: Literal["compressed"] = "compressed"
    compress: str
    compress_to: tuple[str, ...]
    compress_epochs: int
    compress_settings: JsonObject
    hashes: dict[str, str] = Field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        inner = self.inner.facts
        return replace(inner, files={**inner.files, **self.hashes})


class CompressedOptions(WrapperOptions):
    """What a configuration asks of compressed candidates."""

    kind: Literal["compressed"] = "compressed"
    compress: str = Field(description="compression method that every candidate is made smaller by")
    compress_to: tuple[str, ...] = Field(default=(), description="what it may cost: macs<=0.5x")
    compress_epochs: int = Field(default=1, ge=1, description="of the training after it")
    compress_settings: JsonObject = Field(default_factory=dict, description="settings of the method")

    def settle(self, request: Request) -> Settled:
        """Raises UsageError for an evaluator that trains no network, and for a method or targets that do not fit."""
        settings, evaluator, read = self.inner.settle(request)
        if not isinstance(evaluator, Train):
            raise UsageError(
                f"--compress {self.compress} makes networks smaller that are trained, and evaluator "
                f"'{settings.kind}' trains none; leave it out"
            )
        kind, hashed = method(self.compress), file_hash(self.compress)
        config = validate(kind.Config, self.compress_settings, f"{METHOD} {self.compress}")
        outer = CompressedSettings(
            inner=settings,
            compress=self.compress,
            compress_to=tuple(map(str, parse_targets(self.compress_to))),
            compress_epochs=self.compress_epochs,
            compress_settings=config.model_dump(mode="json"),
            hashes={} if hashed is None else {self.compress: hashed},
        )
        return Settled(outer, Compressed(evaluator, outer), read)


class Compressed:
    """An evaluator that trains, and makes each network smaller afterwards. In all else it is that evaluator.

    The last `compress_epochs` of a budget are the training of what is left: from then on reports have its metrics, its
    `params` and `macs`, which are no costs that are known before, and as `base_*` what the whole network came to. Until
    then they are of the whole network, without costs. Every budget is a training of its own, as what a candidate is
    compared by is there only after its end. A network that the targets hold for already is not made smaller, and is
    trained as long.

    `evaluate` raises Rejected `compression` where the method has nothing to do with a network, or does not reach the
    targets; UsageError for a method that does not fit, or that needs several rounds; VerificationError where what has
    gone was more than what the method says.
    """

    Settings = CompressedSettings
    Options = CompressedOptions

    transfers = False

    @classmethod
    def open(cls, settings: CompressedSettings, problem: Problem) -> Opened:
        """Raises like the inner evaluator, and UsageError for a method that has changed or does not fit."""
        inner = opened(settings.inner, problem)
        hashed = file_hash(settings.compress)
        check_files(settings.hashes, {} if hashed is None else {settings.compress: hashed})
        return Opened(cls(inner.evaluator, settings), inner.read)

    def __init__(self, evaluator: Train, settings: CompressedSettings) -> None:
        self._evaluator, self._settings = evaluator, settings
        self._method, self._targets = method(settings.compress), parse_targets(settings.compress_to)
        self._config = validate(self._method.Config, settings.compress_settings, f"{METHOD} {settings.compress}")
        self._after = settings.compress_epochs
        _shorter(evaluator.recipe, self._after)  # says now that it does not fit
        inner = evaluator.fidelity
        self.fidelity = Fidelity(inner.unit, inner.low + self._after, inner.high + self._after)
        self.deterministic, self.in_process = evaluator.deterministic, evaluator.in_process
        learned = [metric for metric in evaluator.metrics if not metric.cost]
        costs = [replace(metric, cost=False) for metric in evaluator.metrics if metric.name in COSTS]
        before = [metric for metric in (*learned, *costs) if metric.name.startswith(("val_", *COSTS))]
        self.metrics = (*learned, *costs, *(replace(metric, name=BASE + metric.name) for metric in before))

    def __getattr__(self, name: str) -> Any:
        """What else an evaluator has, such as its task or its device."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._evaluator, name)

    def identity(self, arch: Architecture) -> str | None:
        return self._evaluator.identity(arch)

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """None is known before."""
        return {}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """A report per epoch up to `budget`; continues what is in `context.workdir`."""
        yield from self.trained(self.made(proposal.arch, context.seed), proposal, budget, context)

    def trained(
        self, model: nn.Module, proposal: Proposal, budget: Budget | None, context: Context
    ) -> Generator[Report, None, None]:
        """The same for the network that `made` has made of the proposal, which is trained in place and stays whole."""
        epochs = (self.fidelity.high if budget is None else budget) - self._after
        path = context.workdir / "trained.safetensors"
        compressor = self._compressor(model, proposal.arch, context.seed)
        whole = yield from self._whole(model, proposal, epochs, context, path)
        begun = time.monotonic()
        network, costs = self._smaller(compressor, proposal.arch, context.seed, path, whole.seconds)
        regime = compressor.regime(network, 0) if isinstance(compressor, HasRegime) else None
        seconds = whole.seconds + time.monotonic() - begun
        named = {metric.name for metric in self.metrics}
        costs |= {BASE + name: value for name, value in whole.metrics.items() if BASE + name in named}
        inside = replace(context, workdir=context.workdir / "compressed")
        regimes = () if regime is None else (regime,)
        tuner = self._tuner(proposal.arch)
        with tuner.computing(), closing(tuner.learn(network, self._after, inside, regimes)) as reports:
            for report in reports:
                yield Report(whole.step + report.step, {**report.metrics, **costs}, seconds + report.seconds)
        path.unlink()
        shutil.rmtree(inside.workdir, ignore_errors=True)

    def _whole(
        self, model: nn.Module, proposal: Proposal, epochs: float, context: Context, path: Path
    ) -> Generator[Report, None, Report]:
        """The training of the whole network, whose end is written to `path`, or was; returns its last report."""
        import safetensors.torch
        from safetensors import safe_open

        from nas_core.files import write_atomically
        from training.checkpoint import storable

        if path.is_file():
            with safe_open(path, framework="numpy") as file:
                reports = [Report(*one) for one in json.loads(file.metadata()["reports"])]
            yield from map(_without_costs, reports)
            return reports[-1]
        reports = []
        with closing(self._evaluator.trained(model, proposal, epochs, context)) as found:
            for report in found:
                reports.append(report)
                yield _without_costs(report)
        said = json.dumps([[one.step, dict(one.metrics), one.seconds] for one in reports])
        write_atomically(path, safetensors.torch.save(storable(model.state_dict()), {"reports": said}))
        return reports[-1]

    def _tuner(self, arch: Architecture) -> Train:
        """What trains what is left of an architecture's network."""
        trained = self._evaluator.of(arch)
        return trained.by(_shorter(trained.recipe, self._after))

    def _compressor(self, model: nn.Module, arch: Architecture, seed: int) -> Compressor | None:
        """The method for a network; None where the targets hold for it already. Raises UsageError."""
        from training.tasks import sample_inputs

        inner = self._evaluator
        costs = costs_of(model, inner.task)
        if self._targets and all(costs[one.metric] <= one.limit(costs) for one in self._targets):
            return None
        subject = Subject(
            inner.task,
            inner.data,
            inner.device,
            seed,
            inputs=tuple(one.to(inner.device) for one in sample_inputs(inner.task, SEEN)),
            recipe=self._tuner(arch).recipe,
            epochs=self._after,
            targets=self._targets,
            base=costs,
            initial=partial(inner.made, arch, seed),
        )
        made = self._method(subject, self._config)
        if len(made.rounds) != 1:
            raise UsageError(
                f"--compress {self._settings.compress}: {len(made.rounds)} rounds; a search takes methods of one round"
            )
        return made

    def _smaller(
        self, compressor: Compressor | None, arch: Architecture, seed: int, path: Path, seconds: float
    ) -> tuple[nn.Module, dict[str, float]]:
        """The network of a file after the method, proved, with its costs. `seconds`: what it has taken until now."""
        import safetensors.torch

        from training.fit import trial_failures

        inner, begun = self._evaluator, time.monotonic()
        whole = inner.made(arch, seed).eval()
        whole.load_state_dict(safetensors.torch.load(path.read_bytes()))
        before = costs_of(whole, inner.task)
        if compressor is None:
            return whole, {name: before[name] for name in COSTS}
        network = copy.deepcopy(whole).to(inner.device)
        try:
            with inner.computing(), trial_failures():
                change = compressor.compress(network, 0)
                if change.recalibrate:
                    recalibrated(network, inner)
        except UsageError as error:
            raise Rejected("compression", str(error), seconds + time.monotonic() - begun) from error
        self._proved(whole, network, change)
        costs = costs_of(network, inner.task)
        for target in self._targets:
            if costs[target.metric] > target.limit(before):
                message = f"{target} is not reached: {target.metric} is {costs[target.metric]:g}"
                raise Rejected("compression", message, seconds + time.monotonic() - begun)
        return network, {name: costs[name] for name in COSTS}

    def _proved(self, whole: nn.Module, network: nn.Module, change: Change) -> None:
        """Raises VerificationError where units that have gone were more than what is said of them."""
        from compressors.proof import prove
        from training.tasks import sample_inputs

        checks = change.checks
        if change.removed:
            inputs, small = [sample_inputs(self.task, SEEN)], copy.deepcopy(network).cpu()
            checks = (*checks, *prove(whole, small, change.removed, inputs, recalibrated=change.recalibrate))
        for check in checks:
            if not check.difference <= check.tolerance:
                raise VerificationError(
                    f"'{self._settings.compress}': {check.name} differs by {check.difference:.3g}, and may by "
                    f"{check.tolerance:g}"
                )


def _shorter(chosen: Recipe, epochs: int) -> Recipe:
    """A recipe for so few epochs. Raises UsageError where it does not fit into them."""
    changed = {
        **chosen.model_dump(mode="json"),
        "epochs": epochs,
        "warmup_epochs": min(chosen.warmup_epochs, epochs - 1),
    }
    return validate(Recipe, changed, "recipe of the training after a compression")


def _without_costs(report: Report) -> Report:
    metrics = {name: value for name, value in report.metrics.items() if name not in COSTS}
    return Report(report.step, metrics, report.seconds)
