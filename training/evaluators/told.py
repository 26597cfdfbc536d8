"""The evaluator of a study whose results are told to it: the user's own trainer evaluates (`nas ask`, `nas tell`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.evaluation import Budget, Context, Fidelity, Goal, Metric, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.task import Task
from training.data.split import Split
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Facts, Opened, Problem, Request, Settled
from training.latency import LatencyConfig

if TYPE_CHECKING:
    import torch


class ToldSettings(EvaluatorSettings):
    """`metrics` are those that are told, with their goals; the data are not read again, `task` says what counts."""

    kind: Literal["told"] = "told"
    task: Task
    metrics: dict[str, Goal]
    epochs: int | None
    data: str | None
    split: Split
    device: str
    threads: int | None
    latency: LatencyConfig

    @property
    def facts(self) -> Facts:
        return Facts(
            data=self.data,
            split=self.split,
            told=True,
            device=self.device,
            threads=self.threads,
            latency=self.latency,
        )

    def at(self, place: str) -> EvaluatorSettings:
        return self.model_copy(update={"data": place})

    def on(self, device: str) -> EvaluatorSettings:
        return self.model_copy(update={"device": device})


class ToldOptions(EvaluatorOptions):
    """What a configuration asks of `Told`."""

    kind: Literal["told"] = "told"
    data: str = Field(default="digits", description="what candidates are trained on (nas data list)")
    split: Split = Field(default=Split(), description="how the data are divided")
    task: Task | None = Field(default=None, description="instead of data that are none of those")
    epochs: int | None = Field(default=None, ge=2, description="steps of a full evaluation, where steps are told too")
    metrics: tuple[str, ...] = Field(default=(), description="that are told beside the objectives: NAME:max, NAME:min")
    device: str = Field(default="cpu", description="on which latencies are measured: auto, cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="of the CPU, for latencies")
    latency: LatencyConfig = Field(default=LatencyConfig(), description="how latencies are measured")

    def settle(self, request: Request) -> Settled:
        from training.devices import find_device

        if self.trial_seconds is not None:
            raise UsageError("a trial whose result is told has no time limit; leave it out")
        task = self._task()
        device = find_device(self.device)
        self.latency.check(task, device.type)
        settings = ToldSettings(
            task=task,
            metrics=told_metrics([*request.objectives, *self.metrics], task),
            epochs=self.epochs,
            data=None if self.task is not None else self.data,
            split=self.split,
            device=str(device),
            threads=self.threads,
            latency=self.latency,
        )
        return Settled(settings, *Told.open(settings, request.problem))

    def _task(self) -> Task:
        from training.data import load

        return self.task if self.task is not None else load(self.data, self.split).task


def told_metrics(texts: Sequence[str], task: Task) -> dict[str, Goal]:
    """The goals of `NAME:max`, `NAME:min` and, of names that a training would report, `NAME`; costs are not among them.
    The first metric of the task's kind where none is named. Raises UsageError for a name without a goal."""
    from training.cost import COSTS
    from training.tasks import kind_of

    first, *others = (Metric(f"val_{one.name}", one.goal) for one in kind_of(task).metrics_of(task))
    usual: dict[str, Goal] = {one.name: one.goal for one in (first, *others)} | {"val_loss": "min"}
    found: dict[str, Goal] = {}
    for text in texts:
        name, _, goal = text.partition(":")
        if name in COSTS:
            continue
        if name not in usual and not name.isidentifier():
            raise UsageError(f"metric '{text}': its name must be one word; write NAME:max or NAME:min")
        if goal not in ("", "max", "min") or (not goal and name not in usual):
            raise UsageError(f"metric '{text}': say what is better, {name}:max or {name}:min")
        found.setdefault(name, goal or usual[name])  # type: ignore[arg-type]
    return found or {first.name: first.goal}


class Told:
    """Knows the costs of a network, and evaluates none. Costs are those of the network at `final_size`."""

    Settings = ToldSettings
    Options = ToldOptions

    deterministic = False
    in_process = True

    @classmethod
    def open(cls, settings: ToldSettings, problem: Problem) -> Opened:
        from training.devices import find_device

        size = problem.final_size or problem.size.fitted(settings.task)
        return Opened(cls(problem.space, settings, size, find_device(settings.device)), "")

    def __init__(self, space: SearchSpace, settings: ToldSettings, size: SizeConfig, device: torch.device) -> None:
        from training.cost import NetworkCosts

        self.space, self.task, self.device = space, settings.task, device
        epochs = settings.epochs
        self.fidelity = None if epochs is None else Fidelity("epoch", 1, epochs, continues=True)
        self._costs = NetworkCosts(space, settings.task, size, device, settings.threads, settings.latency)
        self.metrics = (*(Metric(name, goal) for name, goal in settings.metrics.items()), *self._costs.metrics)

    def identity(self, arch: Architecture) -> str | None:
        return None

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Parameters, MACs and latency at the final size."""
        return self._costs.of(arch, names)

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """Raises UsageError: its user evaluates."""
        raise UsageError("results of this study are told: nas ask, nas tell")
        yield
