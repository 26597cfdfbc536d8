"""The evaluator that trains: build the candidate's network, fit it, report validation metrics after every epoch."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import MachineError, NotFoundError, UsageError
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report, parse_objective
from nas_core.frozen import JsonObject
from nas_core.seeds import generator
from nas_core.space import HasReports, SearchSpace
from nas_core.strategy import Proposal
from nas_core.task import Task
from training import transfer
from training.data.loading import Loading
from training.data.split import Split
from training.devices import default_threads, find_device
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Facts, Opened, Problem, Request, Settled
from training.latency import ONE_PASS, LatencyConfig
from training.networks import build
from training.precision import Precision
from training.recipe import Recipe, decided, losses, recipe
from training.spaces import check_kind
from training.tasks import kind_of
from training.threads import repeatable, thread_count

if TYPE_CHECKING:
    from torch import nn

    from nas_core.batch import Data
    from training.data.protocol import Source
    from training.range_test import Listener, RangeTest
    from training.regimes.regime import Regime
    from training.start import Start, Taken
    from training.teacher import Teacher

WEIGHTS = "weights.safetensors"
LOOKED_AT = 20  # architectures that are asked what they decide of a recipe, before a search begins


class TrainSettings(EvaluatorSettings):
    """What `Train` is opened from. `precision` is what the recipe's has come to, None in studies from before it was
    stored. `monitor` and `metrics`: see `Train`. `files` are the hashes of the user's files of metrics and loss."""

    later: ClassVar[frozenset[str]] = frozenset({"metrics", "monitor", "latency", "precision", "files"})

    kind: Literal["train"] = "train"
    data: str
    split: Split
    recipe: Recipe
    device: str
    threads: int | None
    deterministic: bool
    checkpoint_seconds: float
    metrics: tuple[str, ...] = ()
    monitor: str | None = None
    latency: LatencyConfig = ONE_PASS
    precision: Precision | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        return Facts(
            data=self.data,
            split=self.split,
            trains=True,
            recipe=self.recipe,
            metrics=self.metrics,
            files=self.files,
            device=self.device,
            threads=self.threads,
            latency=self.latency,
            trial_seconds=self.trial_seconds,
        )

    def at(self, place: str) -> EvaluatorSettings:
        return self.model_copy(update={"data": place})

    def on(self, device: str) -> EvaluatorSettings:
        return self.model_copy(update={"device": device})

    def as_stored(self, stored: EvaluatorSettings) -> EvaluatorSettings:
        if not isinstance(stored, TrainSettings) or stored.precision is None:
            return self
        auto = self.recipe.precision == stored.recipe.precision == "auto"
        return self.model_copy(update={"precision": stored.precision}) if auto else self


class TrainOptions(EvaluatorOptions):
    """What a configuration asks of `Train`."""

    kind: Literal["train"] = "train"
    data: str = Field(default="digits", description="what candidates are trained on (nas data list)")
    split: Split = Field(default=Split(), description="how the data are divided")
    recipe: str | JsonObject = Field(default="quick", description="how: a name, with changes to its settings")
    epochs: int | None = Field(default=None, ge=1, description="per trial, where not those of the recipe")
    metrics: tuple[str, ...] = Field(default=(), description="of the validation part, beside accuracy and loss")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="of the CPU, in one training")
    deterministic: bool = Field(default=False, description="bitwise repeatable on a GPU")
    latency: LatencyConfig = Field(default=LatencyConfig(), description="how latencies are measured")
    checkpoint_seconds: float = Field(default=10.0, ge=0, description="at least, between checkpoints of one training")

    @property
    def compute(self) -> tuple[str, int | None, bool]:
        return self.device, self.threads, self.deterministic

    def with_all(self, settings: EvaluatorSettings) -> EvaluatorOptions:
        assert isinstance(settings, TrainSettings)
        named = {"name": self._recipe()[0], **settings.recipe.model_dump(mode="json")}
        return self.model_copy(update={"recipe": named, "epochs": None})

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        """The recipe's name, and changes to it."""
        changes: dict[str, Any] = {} if isinstance(self.recipe, str) else dict(self.recipe)
        name = self.recipe if isinstance(self.recipe, str) else str(changes.pop("name", "quick"))
        return name, changes

    def settle(self, request: Request) -> Settled:
        from training.data import load

        task = load(self.data, self.split).task
        name, changes = self._recipe()
        if self.epochs is not None:
            changes["epochs"] = self.epochs
        chosen = recipe(name, task, **changes)
        check_decided(request.problem.space, chosen, [key for key in changes if key != "epochs"], task)
        settings = TrainSettings(
            data=self.data,
            split=self.split,
            recipe=chosen,
            device=self.device,
            threads=self.threads,
            deterministic=self.deterministic,
            checkpoint_seconds=self.checkpoint_seconds,
            metrics=self.metrics,
            monitor=monitor_of(request.objectives, chosen),
            latency=self.latency,
            trial_seconds=self.trial_seconds,
        )
        evaluator, read = Train.open(settings, request.problem)
        self.latency.check(evaluator.task, evaluator.device.type)
        # "auto" becomes what this machine has, so that a resume trains in the same way.
        found = resolved(evaluator)
        if self.threads is None:  # the workers share the processor
            found["threads"] = max(1, found["threads"] // request.workers)
        return Settled(settings.model_copy(update={**found, "files": dict(evaluator.files)}), evaluator, read)


def check_decided(space: SearchSpace, chosen: Recipe, given: Sequence[str], task: Task) -> None:
    """Raises UsageError for fields of the recipe that architectures decide and that are none, or that a user gave too;
    looked for among some architectures."""
    if getattr(type(space), "recipe", None) is SearchSpace.recipe:
        return
    for number in range(LOOKED_AT):
        fields = space.recipe(moves.sample(space, generator("recipe", number)))
        decided(chosen, fields, task, space.name)
        check_undecided(space, fields, given)


def check_undecided(space: SearchSpace, fields: Mapping[str, Any], given: Sequence[str]) -> None:
    """Raises UsageError where an architecture decides what a user gave."""
    twice = [name for name in given if name in fields]
    if twice:
        raise UsageError(
            f"an architecture of space '{space.name}' decides {twice[0]} of the recipe (as {fields[twice[0]]}); leave "
            f"out recipe.{twice[0]}"
        )


def monitor_of(objectives: Sequence[str], recipe: Recipe) -> str | None:
    """What good epochs are told by, where the recipe tells them from bad ones: the first objective that is measured on
    the validation part; None: accuracy."""
    return next((text for text in objectives if text.startswith("val_")), None) if recipe.selects else None


def resolved(evaluator: Train) -> dict[str, Any]:
    """What "auto" has come to on this machine."""
    threads = evaluator.threads or default_threads(evaluator.task)
    return {"device": str(evaluator.device), "threads": threads, "precision": evaluator.precision}


def check_files(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises UsageError where a user's file is not what it was."""
    for reference, file_hash in then.items():
        if now.get(reference) != file_hash:
            raise UsageError(
                f"the file of '{reference}' has changed since the study was made "
                f"(then {file_hash}, now {now.get(reference)}); restore it, or start another --study"
            )


class Train:
    """Trains each candidate from scratch by a recipe (`nas_core.evaluation.Evaluator`).

    Selection sees the validation part only; with `test` the test part is reported once, after the last epoch of the
    recipe. Costs are those of the network at `final_size`, by default the one that is trained: `params` and `macs` are
    in every report, `latency_ms` is measured when asked for (`costs`), on this device, as `latency` says. With
    `keep_weights` the final weights are left in the run's folder.

    `metrics`: further ones of the whole part, by name or `my.py:f1` (`training.metrics`). `monitor` (as an objective,
    `val_f1:max`) tells good epochs from bad where the recipe keeps the best one or has patience; by default accuracy.
    `ends_early`: whether patience may end a training before its budget. `files` has
    the hash of every file of the user's that metrics and loss come from.

    `epochs`: the largest budget, by default those of the recipe. What an architecture decides of the recipe
    (`SearchSpace.recipe`) goes before it: its epochs are the horizon of its schedule, at which a larger budget ends.

    `start`: weights that every training begins with, where the network has them too. `teacher`: a network that every
    training learns from, as the recipe's `distillation` says.

    `device`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1". `threads`: of the CPU, None for torch's
    own number. `deterministic` makes CUDA repeat itself bit for bit, slower; a CPU always does.
    """

    Settings = TrainSettings
    Options = TrainOptions

    transfers = True  # `Proposal.transfer`

    @classmethod
    def open(cls, settings: TrainSettings, problem: Problem) -> Opened:
        """Raises like the class, and UsageError where a user's file of metrics or loss has changed."""
        from training.data import load

        source, chosen = load(settings.data, settings.split), settings.recipe
        evaluator = cls(
            problem.space,
            source,
            problem.size,
            chosen if settings.precision is None else chosen.model_copy(update={"precision": settings.precision}),
            final_size=problem.final_size,
            latency=settings.latency,
            device=settings.device,
            threads=settings.threads,
            deterministic=settings.deterministic,
            checkpoint_seconds=settings.checkpoint_seconds,
            metrics=settings.metrics,
            monitor=settings.monitor,
        )
        check_files(settings.files, evaluator.files)
        return Opened(evaluator, source.split_hash)

    def __init__(
        self,
        space: SearchSpace,
        source: Source,
        size: SizeConfig,
        recipe: Recipe,
        *,
        epochs: int | None = None,
        final_size: SizeConfig | None = None,
        latency: LatencyConfig = ONE_PASS,
        device: str = "auto",
        threads: int | None = None,
        deterministic: bool = False,
        keep_weights: bool = False,
        test: bool = False,
        checkpoint_seconds: float = 10.0,
        metrics: Sequence[str] = (),
        monitor: str | None = None,
        start: Start | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        """Raises UsageError where space, data and teacher do not fit, or for metrics, a loss or a monitor that are
        none; MachineError for a device that is not there."""
        from training import precision
        from training.cost import NetworkCosts
        from training.metrics import load_metrics

        self.space, self.source, self.size, self.recipe, self.start = space, source, size, recipe, start
        self.epochs = recipe.epochs if epochs is None else epochs
        self.bound: dict[Loading, Data] = {}  # data on the device, which evaluators may share
        self.task = source.task
        check_kind(space, self.task.kind, source.reference)
        if getattr(type(space), "build", None) is SearchSpace.build and not hasattr(space, "network"):
            raise UsageError(f"space '{space.name}' has no build, so its networks cannot be trained; give it one")
        self.teacher = teacher
        if teacher is None:
            for settings in recipe.regimes:
                settings.regime(None)  # says that it needs one
        else:
            teacher.check(self.task, getattr(source, "inputs", None))
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: at least 1 is needed")
        self.device = find_device(device)
        self.threads = threads
        self.keep_weights, self.test, self.checkpoint_seconds = keep_weights, test, checkpoint_seconds
        self.precision = precision.resolve(recipe.precision, self.device, self.task.kind)
        self.in_process = self.device.type == "cpu"
        self.deterministic = deterministic or self.in_process
        self.fidelity = Fidelity("epoch", 1, self.epochs, continues=True)
        self._costs = NetworkCosts(space, self.task, final_size or size, self.device, threads, latency)
        self.ends_early = recipe.patience is not None
        kind = kind_of(self.task)
        self.own = load_metrics(metrics, kind)
        always = kind.metrics_of(self.task)
        usual = [Metric(f"val_{one.name}", one.goal) for one in always]
        learned = (*usual, Metric("val_loss", "min"), *(Metric(f"val_{own.name}", own.goal) for own in self.own))
        self.monitor = parse_objective(monitor or learned[0].name, learned)
        self.files = {own.reference: own.file_hash for own in self.own if own.file_hash is not None}
        if recipe.loss not in losses():
            from training.loss import load_loss

            loss = load_loss(recipe.loss)
            self.files |= {} if loss.file_hash is None else {loss.reference: loss.file_hash}
        self.metrics = (
            *learned,
            Metric("train_loss", "min"),
            *(space.reports(self.task) if isinstance(space, HasReports) else ()),
            *self._costs.metrics,
            *(Metric(f"test_{one.name}", one.goal) for one in (*always, *self.own) if test),
            *([Metric("kept_epoch", unit="epoch")] if recipe.keep == "best" else []),
            *([Metric("micro_batch", unit="samples")] if kind.apart else []),
        )

    def identity(self, arch: Architecture) -> str | None:
        return None

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Parameters, MACs and latency at the final size; MACs of a graph network only where its space counts them."""
        return self._costs.of(arch, names)

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """A report per epoch up to `budget`; continues a checkpoint in `context.workdir`. Raises as `fit`."""
        yield from self.trained(self.made(proposal.arch, context.seed), proposal, budget, context)

    def trained(
        self, model: nn.Module, proposal: Proposal, budget: Budget | None, context: Context
    ) -> Generator[Report, None, None]:
        """The same for the network that `made` has made of the proposal, which is trained in place."""
        from training.checkpoint import write_tensors

        epochs = self._whole(budget)
        with self.computing():
            static = {**self.costs(proposal.arch, self._costs.counts), **self._begun_with(model, proposal, context)}
            with closing(self.of(proposal.arch).learn(model, epochs, context)) as reports:
                for report in reports:
                    yield replace(report, metrics={**report.metrics, **static})
            if self.keep_weights:
                write_tensors(context.workdir / WEIGHTS, model.state_dict())
            if context.keep:
                transfer.write(context.workdir / transfer.LEAVES, model)

    def _begun_with(self, model: nn.Module, proposal: Proposal, context: Context) -> dict[str, float]:
        """Give a network what another trial has learned, where it begins with that; how much of it that was."""
        path = context.workdir / transfer.BEGINS_WITH
        if path.is_file():
            return {"transferred": transfer.take(path, model)}
        if proposal.transfer is not None:
            raise NotFoundError(f"the weights of trial {proposal.transfer}, which another one begins with, are gone")
        return {}

    def learn(
        self, model: nn.Module, epochs: int, context: Context, regimes: Sequence[Regime] = ()
    ) -> Generator[Report, None, None]:
        """Train a network by the recipe and `regimes`, with its learned metrics after every epoch; goes on from a
        checkpoint in `context.workdir`. Within `computing`. Raises as `fit`."""
        from training.fit import fit

        declared = {metric.name for metric in self.metrics}
        reports = fit(
            model,
            self.data,
            self.recipe,
            device=self.device,
            seed=context.seed,
            budget=epochs,
            full=self.epochs,
            folder=context.workdir,
            checkpoint_seconds=self.checkpoint_seconds,
            stopping=context.stopping,
            deadline=context.deadline,
            test=self.test,
            metrics=self.own,
            monitor=self.monitor,
            teacher=self.teacher,
            regimes=regimes,
        )
        with closing(reports):  # here, where what goes wrong at the end is still heard
            for report in reports:
                learned = {name: value for name, value in report.metrics.items() if name in declared}
                yield replace(report, metrics=learned)

    def by(self, recipe: Recipe) -> Self:
        """The same with another recipe, to `learn` by."""
        other = copy.copy(self)
        other.recipe, other.epochs = recipe, recipe.epochs
        return other

    def of(self, arch: Architecture) -> Self:
        """What trains an architecture: the same where it decides no field of the recipe. Its epochs are the horizon of
        its schedule, and budgets stay those of this one. Raises UsageError for fields that are none."""
        fields = self.space.recipe(arch)
        if not fields:
            return self
        other = self.by(decided(self.recipe, fields, self.task, self.space.name))
        other.epochs = self.epochs
        return other

    def measure(self, model: nn.Module, *parts: str) -> dict[str, float]:
        """The metrics of a network as it is on parts of the data ("valid", "test"). Within `computing`. Raises
        TrialError."""
        from training.fit import Training, trial_failures

        found: dict[str, float] = {}
        with trial_failures():
            plan = self.recipe.ordinary  # no regime begins with a network that is not trained
            training = Training(model, self.data, plan, self.device, 0, None, self.own, self.monitor)
            for part in parts:
                found |= training.evaluate(part)
        declared = {metric.name for metric in self.metrics}
        return {name: value for name, value in found.items() if name in declared}

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The threads and the algorithms that it computes with."""
        with thread_count(self.threads), repeatable(self.device, self.deterministic):
            yield

    def range_test(self, arch: Architecture, seed: int, listen: Listener) -> RangeTest:
        """The learning-rate range test of the network that `evaluate` would train with this seed; nothing is written.

        Raises as `training.range_test.range_test`.
        """
        from training.fit import Training, trial_failures
        from training.range_test import range_test

        with self.computing():
            model, mine = self.made(arch, seed), self.of(arch)
            with trial_failures():
                training = Training(model, mine.data, mine.recipe, self.device, seed, None, teacher=self.teacher)
            return range_test(training, listen=listen)

    def taken(self, arch: Architecture) -> Taken | None:
        """How much of the network of `arch` the weights to start from give; None without such weights. Raises as
        `Start.take`."""
        return None if self.start is None else self.start.take(build(self.space, arch, self.task, self.size, 0))

    def made(self, arch: Architecture, seed: int) -> nn.Module:
        """The network before its first step, on the CPU."""
        from training.fit import trial_failures

        with self.computing(), trial_failures():
            model = build(self.space, arch, self.task, self.size, seed)
            if self.start is not None:
                self.start.take(model)
            kind_of(self.task).check(model, self.task)
        return model

    def _whole(self, budget: Budget | None) -> int:
        if budget is None:
            return self.epochs
        if budget != int(budget) or not 1 <= budget <= self.epochs:
            raise UsageError(f"budget {budget:g}: training takes 1 to {self.epochs} whole epochs")
        return int(budget)

    def share(self, other: Train) -> None:
        """Learn from what `other` has in memory: one of the same data, recipe and device."""
        self.source, self.bound = other.source, other.bound

    @property
    def data(self) -> Data:
        """The data on the device, in the batches of the recipe. Raises MachineError where they do not fit."""
        recipe = self.recipe
        loading = Loading(
            batch_size=recipe.batch_size, augment=recipe.augment, channels_last=True, fan_out=recipe.fan_out
        )
        if loading not in self.bound:
            self.bound[loading] = self._bind(loading)
        return self.bound[loading]

    def _bind(self, loading: Loading) -> Data:
        import torch

        try:
            return self.source.bind(self.device, loading)
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the data set does not fit into the memory of {self.device}; use --device cpu"
            ) from error
