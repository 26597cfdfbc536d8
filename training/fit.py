"""The fit loop: trains one network epoch by epoch and yields a report after each; nothing waits, nothing is lost.

The data lie on the device, convolutions run in channels_last, bf16 autocast is used where the processor is faster
with it, the optimiser is fused, and a number is read back from the device once per epoch. A convolution network must
therefore not assume the default layout of its own maps: `x.flatten(1)` or `reshape`, not `x.view`.

What a network may bring beside its answer is said in `nas_core.traits`: modules that change over the training, a second
head, terms of the loss with statistics, parameters that do not decay. Reported losses are those of the logits.

What the recipe may ask for beyond a step of the optimiser has files of its own: `loss`, `mixup`, `selection`,
`regimes`. One file, because what a step does, what a checkpoint holds of it and how it is taken up again change
together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_core.batch import Batch, Data
from nas_core.errors import NasError, TrialError, UsageError
from nas_core.evaluation import LOADS, Objective, Report
from nas_core.seeds import derive
from nas_core.traits import Progressive
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CheckpointError
from training.compute import Extras, Forward, add, means, weighted
from training.loss import Criterion
from training.metrics import PartMetric
from training.mixup import mixed
from training.optimizer import make_optimizer, parameter_groups
from training.outputs import logits_of
from training.precision import resolve
from training.recipe import Recipe, learning_rate
from training.regimes.regime import Regime, Regimes
from training.selection import Selection
from training.tasks import kind_of
from training.teacher import Teacher

SMALLEST_MICRO_BATCH = 8

T = TypeVar("T")


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    device: torch.device,
    seed: int,
    budget: int | None = None,
    full: int | None = None,
    folder: Path | None = None,
    checkpoint_seconds: float = 10.0,
    stopping: Callable[[], bool] = lambda: False,
    deadline: float | None = None,
    test: bool = False,
    metrics: Sequence[PartMetric] = (),
    monitor: Objective | None = None,
    teacher: Teacher | None = None,
    regimes: Sequence[Regime] = (),
) -> Generator[Report, None, None]:
    """Train `model` in place, and yield `train_loss` and `val_*` metrics after each epoch.

    `budget` is the epoch to stop after, and `full` the largest one that may be asked for (None: the recipe's epochs); a
    training ends with its recipe, and the learning rate follows `recipe.epochs` whatever both are. A checkpoint
    in `folder` is continued, and its reports are yielded again; on a CPU the result is bit for bit that of an
    uninterrupted training. One is written at an epoch's end when `checkpoint_seconds` have passed since the last
    (0: always), when `stopping()`, and at the end of a budget below `full`. With `test` the report of the last epoch
    that there can be also has `test_*`. Images report `micro_batch`, the samples per forward pass: the
    batch size, or less where memory did not suffice (batch normalisation then sees the smaller batches).

    Own `metrics` are reported as `val_*` and `test_*` too. With `recipe.keep` best every report names the best epoch so
    far by `monitor` (`kept_epoch`), and the last report of a budget has the figures of that epoch, whose weights are
    then in `model`, and tested. `recipe.patience` may end the training, and so the reports, before the budget.

    `regimes` act on every step, after those of the recipe, of which distillation needs a `teacher`. What modules hand
    over (`nas_core.traits.Extra`) is reported as `train_*`, means over the samples. Of layers of experts the report's
    `detail` has the `LOADS`, which a training that goes on has of its last and of its best epoch.

    Raises TrialError: `nan-loss`, `out-of-memory`, `time-limit` (`deadline`, in time.monotonic() seconds) or
    `exception`; CheckpointError for a checkpoint of another network or program; UsageError for one of another training.
    """
    started = saved = time.monotonic()
    full = recipe.epochs if full is None else full
    budget = full if budget is None else budget
    if not 1 <= budget <= full:
        raise UsageError(f"budget {budget} is not within 1 to {full} epochs")
    epochs, end = min(budget, recipe.epochs), min(full, recipe.epochs)
    with trial_failures():
        training = Training(model, data, recipe, device, seed, deadline, metrics, monitor, teacher, regimes)
    reports = training.resume(folder) if folder else []
    if len(reports) > epochs:
        raise UsageError(f"the checkpoint in '{folder}' is at epoch {len(reports)}, beyond the budget {epochs}")
    started -= reports[-1].seconds if reports else 0.0

    def complete(report: Report) -> Report:
        over = training.selection.over(report.step)
        if report.step != epochs and not over:
            return report
        kept = training.deliver(report)
        if not test or (report.step != end and not over):
            return kept
        with trial_failures():
            tested = training.evaluate("test")
        return replace(kept, metrics={**kept.metrics, **tested}, seconds=time.monotonic() - started)

    for report in reports:
        yield complete(report)
    for epoch in range(len(reports), epochs):
        if training.selection.over(epoch):
            return
        with trial_failures():
            found = training.epoch(epoch)
        report = Report(epoch + 1, found, time.monotonic() - started, training.detail())
        reports.append(training.select(report))
        last = epoch + 1 == epochs or training.selection.over(epoch + 1)
        due = not last and time.monotonic() - saved >= checkpoint_seconds
        written = folder is not None and (due or (last and budget < full) or stopping())
        if folder and written:
            training.save(folder, reports)
            saved = time.monotonic()
        try:
            yield complete(reports[-1])
        except GeneratorExit:  # stopped after the report, which the checkpoint must hold too
            if folder and not (written or last) and stopping():
                training.save(folder, reports)
            raise


def first_steps(model: nn.Module, data: Data, recipe: Recipe, *, device: torch.device, seed: int, steps: int) -> None:
    """The first optimiser steps of the training that `fit` would do, in place; the network is in evaluation mode
    afterwards. Raises UsageError for more than the recipe has."""
    Training(model, data, recipe, device, seed, None).first_steps(steps)
    model.eval()


class Training:
    """A network in training: what one epoch does, and what a checkpoint must hold to continue after it."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        device: torch.device,
        seed: int,
        deadline: float | None,
        metrics: Sequence[PartMetric] = (),
        monitor: Objective | None = None,
        teacher: Teacher | None = None,
        regimes: Sequence[Regime] = (),
    ) -> None:
        self.data = data
        self.recipe = recipe
        self.device = device
        self.seed = seed
        self.deadline = deadline
        self.precision = resolve(recipe.precision, device, data.task.kind)
        self.forward = Forward(device, self.precision, channels_last=has_convolutions(model))
        self.model = self.forward.place(model)
        self.extras = Extras(self.model)
        self.statistics: dict[str, Tensor] = {}
        self.loads: dict[str, Tensor] = {}
        self.progressive = [module for module in self.model.modules() if isinstance(module, Progressive)]
        self.regimes = Regimes([*(settings.regime(teacher) for settings in recipe.regimes), *regimes])
        if self.regimes.last and (recipe.selects or recipe.ema is not None):
            raise UsageError(
                "recipe: what is trained here is in the weights after the last step alone; take keep=last, and no ema "
                "and no patience (-s recipe.keep=last)"
            )
        if self.regimes:
            self.regimes.begin(self.model, self.forward, next(iter(data.batches("train", 0, seed))), seed)
        groups = [*parameter_groups(self.model), *self.regimes.parameter_groups()]
        self.optimizer = make_optimizer(recipe, groups, device)
        self.regimes.optimizing(self.optimizer)
        self.criterion = Criterion(recipe, data)
        self.own = metrics
        self.kind = kind_of(data.task)
        usual = self.kind.metrics_of(data.task)
        self.metrics = (*(metric for metric in usual if not metric.per_sample), *metrics)
        first = usual[0]
        self.selection = Selection(recipe, monitor or Objective(f"val_{first.name}", first.goal))
        self.losses: list[float] = []  # of the validation part, of every epoch so far
        self.averaged = None if recipe.ema is None else averaged(self.model, recipe.ema)
        self.evaluated: nn.Module = self.model if self.averaged is None else self.averaged.module
        self.micro_batch = recipe.batch_size if self.kind.apart else None

    def select(self, report: Report) -> Report:
        """Take an epoch's report for the choice of the best one, and name that in it where its weights are kept."""
        self.losses.append(report.metrics.get("val_loss", math.nan))
        self.selection.take(report, self.evaluated)
        if self.recipe.keep == "last" or self.selection.report is None:
            return report
        return replace(report, metrics={**report.metrics, "kept_epoch": self.selection.report.step})

    def deliver(self, report: Report) -> Report:
        """Put the weights that count into the network, and give their figures to the last report."""
        if self.selection.weights:
            self.model.load_state_dict(self.selection.weights)
        elif self.averaged is not None:
            self.model.load_state_dict(self.averaged.module.state_dict())
        self.evaluated = self.model
        self.regimes.end()
        return self.selection.final(report)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch; counted by going through its batches once, so asked only where it is needed."""
        return sum(1 for _ in self.data.batches("train", 0, self.seed))

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch and validate; raises TrialError where a loss is not finite."""
        with self.seeded(epoch):
            metrics = {**self.train(epoch), **self.evaluate("valid")}
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(metrics.get(name, 0.0)):
                raise TrialError("nan-loss", f"{name} is {metrics[name]} in epoch {epoch + 1}")
        if self.micro_batch is not None:
            metrics["micro_batch"] = float(self.micro_batch)
        return metrics

    @contextmanager
    def seeded(self, epoch: int) -> Iterator[None]:
        """In it, learning rate and random numbers are those of an epoch."""
        self.set_rate(learning_rate(self.recipe, epoch, losses=self.losses))
        # Seeding each epoch makes dropout the same after a resume, and leaves the caller's generators alone.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            seed_torch(derive(self.seed, epoch, "training"), self.device)
            yield

    def train(self, epoch: int, steps: int | None = None) -> dict[str, float]:
        """One pass over the training part, or its first `steps`; the means over it, as `train_*`."""
        self.model.train()
        self.statistics, self.loads = {}, {}
        total, count = torch.zeros((), device=self.device), 0
        every_step = self.recipe.cyclic or bool(self.progressive or self.regimes)
        for number, batch in enumerate(islice(self.batches(epoch), steps)):
            if every_step:
                self.before_step(epoch * self.steps_per_epoch + number)
            total += self.update(batch)
            count += batch.samples
        sums = {"loss": total, **self.statistics}
        return {f"train_{name}": float(value) / max(count, 1) for name, value in sums.items()}

    def detail(self) -> dict[str, Any] | None:
        """What is said of the last epoch beside metrics: the loads of experts; None without any."""
        if not self.loads:
            return None
        return {LOADS: {name: (load / load.sum().clamp_min(1e-9)).tolist() for name, load in self.loads.items()}}

    def first_steps(self, steps: int) -> None:
        """The first optimiser steps of a training that begins. Raises UsageError for more than it has."""
        most = self.recipe.epochs * self.steps_per_epoch
        if steps > most:
            raise UsageError(f"{steps} steps are more than the {most} of {self.recipe.epochs} epochs")
        for epoch in range(math.ceil(steps / self.steps_per_epoch)):
            with self.seeded(epoch):
                self.train(epoch, steps - epoch * self.steps_per_epoch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """What an epoch trains on, one batch per step."""
        batches = self.data.batches("train", epoch, self.seed)
        return mixed(batches, self.recipe.mixup, self.seed, epoch) if self.recipe.mixup else batches

    def before_step(self, step: int) -> None:
        """Learning rate of a cycle, and what changes with the optimiser step `step` of the training (from 0)."""
        if self.recipe.cyclic:
            self.set_rate(learning_rate(self.recipe, step, self.steps_per_epoch))
        steps = self.recipe.epochs * self.steps_per_epoch
        for module in self.progressive:
            module.set_progress(step / max(steps - 1, 1))
        self.regimes.before_step(step, steps)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self, batch: Batch) -> Tensor:
        """One optimiser step; returns the sum of the losses before it, on the device."""
        self.regimes.before_gradients(partial(self.probe, batch))
        total, statistics, loads = self.within_memory(batch, self.gradients)
        add(self.statistics, statistics)
        add(self.loads, loads)
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.regimes.after_step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return total

    def probe(self, batch: Batch) -> None:
        """Gradients of a batch ahead of its step; all else stays as it was, so that the step draws the same dropout."""

        def gradients(pieces: Sequence[Batch]) -> None:
            self.model.zero_grad(set_to_none=True)  # also of parameters that the optimiser does not hold
            self.gradients(pieces)

        held = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            self.within_memory(batch, gradients)
        for buffer, value in held:
            buffer.copy_(value)

    def gradients(self, pieces: Sequence[Batch]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Gradients of the mean loss over all pieces of a batch; returns the sums of the losses, of statistics, and of
        the loads of experts, on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        self.extras.drop()
        total, count = torch.zeros((), device=self.device), sum(piece.samples for piece in pieces)
        statistics: dict[str, Tensor] = {}
        loads: dict[str, Tensor] = {}
        for piece in pieces:
            with self.regimes.watching():
                logits, auxiliary = self.answers(piece, self.model)
            losses = [self.criterion(output, piece) for output in (logits, auxiliary) if output is not None]
            extra, found = self.extras.take()
            total += losses[0].detach() * piece.samples
            add(statistics, {name: value * piece.samples for name, value in found.items()})
            add(loads, self.extras.loads())
            loss = weighted(self.model, losses) if extra is None else weighted(self.model, losses) + extra
            (self.regimes.objective(loss, piece, logits) * (piece.samples / count)).backward()
        return total, statistics, loads

    def evaluate(self, part: str) -> dict[str, float]:
        """Mean metrics of one part, named `val_*` or `test_*`."""
        self.evaluated.eval()
        answers: list[tuple[Tensor, Tensor]] = []

        def measured() -> Iterator[Mapping[str, Tensor]]:
            for batch in self.data.batches(part, 0, self.seed):
                sums, answered = self.within_memory(batch, self.measure)
                answers.extend(answered)
                yield sums

        with torch.no_grad():
            averages = means(measured())
        prefix = {"valid": "val"}.get(part, part)
        found = {f"{prefix}_{name}": value for name, value in averages.items()}
        if self.metrics:
            outputs, targets = (torch.cat([one.cpu() for one in column]) for column in zip(*answers, strict=True))
            found |= {f"{prefix}_{metric.name}": metric(outputs, targets) for metric in self.metrics}
        return found

    def measure(self, pieces: Sequence[Batch]) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """Sums of the metrics over all pieces of a batch, on the device; and, where metrics are functions of all of
        them, outputs and targets, there as well: nothing waits for the device before the part is over."""
        sums: dict[str, Tensor] = {}
        answers = []
        for piece in pieces:
            output, _ = self.answers(piece, self.evaluated)
            add(sums, self.criterion.metrics(output, piece))
            if self.metrics:
                answers.append(piece.answered(output))
        return sums, answers

    def answers(self, batch: Batch, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Logits, and those of the auxiliary head where the network gives them, in float32."""
        return logits_of(self.forward(model, batch), self.data.task.rows(batch.inputs), self.data.task)

    def within_memory(self, batch: Batch, work: Callable[[Sequence[Batch]], T]) -> T:
        """`work` on the batch, in as many pieces as memory demands. Raises TrialError past the deadline."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TrialError("time-limit", "the time for this candidate is over")
        while True:
            try:
                return work(self.pieces(batch))
            except Exception as error:
                if not is_out_of_memory(error) or not self.halve(batch):
                    raise
            # Outside of the handler: the error's traceback holds on to the tensors that were in the way.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def pieces(self, batch: Batch) -> Sequence[Batch]:
        """The batch, cut evenly into pieces of at most `micro_batch` samples (graphs)."""
        count = batch.size
        if self.micro_batch is None or count <= self.micro_batch:
            return (batch,)
        parts = math.ceil(count / self.micro_batch)
        size, larger = divmod(count, parts)
        ends = [size * number + min(number, larger) for number in range(parts + 1)]
        return [batch.part(start, stop) for start, stop in pairwise(ends)]

    def halve(self, batch: Batch) -> bool:
        """Make pieces smaller; False where they would be too small, or where a sample needs all others (graphs)."""
        if self.micro_batch is None:
            return False
        smaller = min(self.micro_batch, batch.size) // 2
        if smaller < SMALLEST_MICRO_BATCH:
            return False
        self.micro_batch = smaller
        return True

    def save(self, folder: Path, reports: Sequence[Report]) -> None:
        """Write a checkpoint of the state after the last of `reports`."""
        tensors, plain = checkpoints.optimizer_state(self.optimizer)
        state = {
            "training": self.description(),
            "micro_batch": self.micro_batch,
            "optimizer": plain,
            "reports": [[report.step, _without_nan(report.metrics), report.seconds] for report in reports],
        }
        # Of the epochs that a result can be of; others were reported, and none asks for them again.
        best = reports[-1] if self.selection.report is None else self.selection.report
        details = {int(report.step): report.detail for report in (best, reports[-1]) if report.detail is not None}
        if details:
            state["details"] = [[step, detail] for step, detail in details.items()]
        named = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        named |= {f"kept/{name}": tensor for name, tensor in self.selection.weights.items()}
        if self.averaged is not None:
            named |= {f"averaged/{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        named |= {f"optimizer/{name}": tensor for name, tensor in tensors.items()}
        named |= {f"regimes/{name}": tensor for name, tensor in self.regimes.tensors().items()}
        checkpoints.save(folder, Checkpoint(len(reports), named, state))

    def resume(self, folder: Path) -> list[Report]:
        """Take up the newest checkpoint in `folder`; its reports, none where there is no checkpoint."""
        found = checkpoints.load(folder)
        if found is None:
            return []
        wanted, state = self.description(), found.state
        for name, value in wanted.items():
            if state["training"].get(name) != value:
                raise UsageError(
                    f"the checkpoint in '{folder}' belongs to another training: "
                    f"{name} is {state['training'].get(name)} there and {value} here"
                )
        try:
            self.model.load_state_dict(_named(found.tensors, "model/"))
            if self.averaged is not None:
                self.averaged.load_state_dict(_named(found.tensors, "averaged/"))
            self.regimes.restore(_named(found.tensors, "regimes/"))
            checkpoints.restore_optimizer(self.optimizer, _named(found.tensors, "optimizer/"), state["optimizer"])
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(f"the checkpoint in '{folder}' is of another network: {first_line(error)}") from error
        self.micro_batch = state["micro_batch"]
        details = dict(state.get("details", ()))
        reports = [
            Report(
                step,
                {name: math.nan if value is None else value for name, value in metrics.items()},
                seconds,
                details.get(step),
            )
            for step, metrics, seconds in state["reports"]
        ]
        kept = {name: tensor.to(self.device) for name, tensor in _named(found.tensors, "kept/").items()}
        self.selection.resume(reports, kept)
        self.losses = [report.metrics.get("val_loss", math.nan) for report in reports]
        return reports

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be continued."""
        recipe = self.recipe.model_copy(update={"precision": self.precision})  # what "auto" has come to
        described = {"seed": self.seed, "recipe": recipe.model_dump(mode="json")}
        if self.own:
            described["metrics"] = [metric.reference for metric in self.own]
        if recipe.selects:
            described["monitor"] = str(self.selection.monitor)
        return described | dict(self.regimes.description())


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a network: after its first step a copy, then `decay` of itself and the rest of
    the network per step. Running statistics are averaged like weights, so that they belong to them."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that a training on `device` draws from, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def has_convolutions(model: nn.Module) -> bool:
    """Whether channels_last can help the network."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


@contextmanager
def trial_failures() -> Iterator[None]:
    """What a candidate's own code does wrong, or its size, ends as a TrialError; our errors pass through."""
    try:
        yield
    except NasError:
        raise
    except Exception as error:
        reason = "out-of-memory" if is_out_of_memory(error) else "exception"
        raise TrialError(reason, f"{type(error).__name__}: {first_line(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left; a CPU allocator says so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's message, shortened."""
    return (str(error).strip().splitlines() or [""])[0][:limit]


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON, which has no nan, can hold them."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
