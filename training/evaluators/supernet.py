"""The evaluator on shared weights: how good an architecture is in a trained supernet, nothing is trained."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.config import SizeConfig, size_text
from nas_core.errors import MachineError, NotFoundError, TrialError, UsageError, VerificationError
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.task import Task
from nas_core.traits import AUXILIARY
from training.data.loading import Loading
from training.data.split import Split
from training.devices import find_device
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Facts, Opened, Problem, Request, Settled
from training.latency import ONE_PASS, LatencyConfig
from training.precision import Precision, resolve
from training.precision import Request as PrecisionRequest
from training.spaces import check_kind
from training.tasks import kind_of
from training.threads import repeatable, thread_count

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.supernet.supernet import Supernet
    from training.data.protocol import Source

RECALIBRATION = 20  # batches
SPACE = "space"
"""Beside the weights of a supernet: the name of the space that they are of."""


class SupernetSettings(EvaluatorSettings):
    """What `SupernetEvaluator` is opened from: the `weights` of the supernet of `study`, and what it was trained on."""

    later: ClassVar[frozenset[str]] = frozenset({"latency"})

    kind: Literal["supernet"] = "supernet"
    study: str
    weights: str  # path
    sha256: str
    data: str
    split: Split
    split_hash: str
    precision: Precision
    threads: int
    deterministic: bool
    device: str
    latency: LatencyConfig = ONE_PASS

    @property
    def facts(self) -> Facts:
        return Facts(
            data=self.data,
            split=self.split,
            device=self.device,
            threads=self.threads,
            latency=self.latency,
            supernet=self,
            trial_seconds=self.trial_seconds,
        )

    def at(self, place: str) -> EvaluatorSettings:
        return self.model_copy(update={"data": place})

    def on(self, device: str) -> EvaluatorSettings:
        return self.model_copy(update={"device": device})

    def as_stored(self, stored: EvaluatorSettings) -> EvaluatorSettings:
        if not isinstance(stored, SupernetSettings):
            return self
        return self.model_copy(update={"precision": stored.precision})


class SupernetOptions(EvaluatorOptions):
    """What a configuration asks of `SupernetEvaluator`. Its data, threads and number format are the supernet's."""

    kind: Literal["supernet"] = "supernet"
    study: str | None = Field(default=None, description="whose supernet it is")
    device: str = Field(default="auto", description="auto (the supernet's), cpu, cuda or cuda:N")
    latency: LatencyConfig = Field(default=LatencyConfig(), description="how latencies are measured")

    @property
    def compute(self) -> tuple[str, int | None, bool]:
        return self.device, None, False

    @property
    def supernet(self) -> str | None:
        if not self.study:
            raise UsageError("--evaluator supernet needs a study with a trained supernet; write supernet:STUDY")
        return self.study

    def settle(self, request: Request) -> Settled:
        shared = request.shared
        assert shared is not None  # of the study that `supernet` says
        if (shared.space, shared.space_hash) != (request.space, request.space_hash):
            raise UsageError(
                f"the supernet of study '{shared.study}' is of space '{shared.space}', not '{request.space}'; "
                f"search with --space {shared.space}"
            )
        if request.problem.size.fitted(shared.task).model_dump(mode="json") != shared.size:
            raise UsageError(
                f"the supernet of study '{shared.study}' has another size; search with --size {size_text(shared.size)}"
            )
        settings = SupernetSettings(
            study=shared.study,
            weights=shared.weights,
            sha256=shared.sha256,
            data=shared.data,
            split=shared.split,
            split_hash=shared.split_hash,
            precision=shared.precision,
            threads=shared.threads,
            deterministic=shared.deterministic,
            device=self.device if self.device != "auto" else shared.device,
            latency=self.latency,
            trial_seconds=self.trial_seconds,
        )
        evaluator, read = SupernetEvaluator.open(settings, request.problem)
        self.latency.check(evaluator.task, evaluator.device.type)
        return Settled(settings, evaluator, read)


class SupernetEvaluator:
    """Evaluates an architecture with the weights that it has in a trained supernet (`nas_core.evaluation.Evaluator`).

    Every candidate gets running statistics of its own (Guo et al., "Single Path One-Shot Neural Architecture Search
    with Uniform Sampling", ECCV 2020, section 3.4): those of the supernet are averages over all paths. They are taken
    from the first `recalibrate` training batches, see `recalibrate`. Then the whole validation part is evaluated. The
    supernet itself is never changed, so a report depends on nothing but the architecture.

    `supernet_accuracy` and `supernet_loss` are no `val_accuracy` and `val_loss`: shared and trained weights do not
    compare. Costs are those of the stand-alone network that `build` makes at `final_size`, by default the supernet's;
    `latency_ms` is measured when asked for (`costs`), as `latency` says.

    `weights`: a safetensors file of `Supernet.state_dict()`. `device`, `threads`: as for `Train`. `precision`: of the
    forward passes.
    """

    Settings = SupernetSettings
    Options = SupernetOptions

    deterministic = True
    fidelity: Fidelity | None = None

    @classmethod
    def open(cls, settings: SupernetSettings, problem: Problem) -> Opened:
        """Raises like the class, and VerificationError for other weights than the study was made with."""
        from training.data import load

        path = Path(settings.weights)
        if not path.is_file():
            raise NotFoundError(f"the weights of the supernet of study '{settings.study}' are not at '{path}' any more")
        if hashlib.sha256(path.read_bytes()).hexdigest() != settings.sha256:
            raise VerificationError(f"'{path}' does not hold the weights that the study was made with")
        source = load(settings.data, settings.split)
        evaluator = cls(
            problem.space,
            source,
            problem.size,
            path,
            final_size=problem.final_size,
            latency=settings.latency,
            device=settings.device,
            threads=settings.threads,
            precision=settings.precision,
        )
        read = hashlib.sha256(f"{source.split_hash} {settings.sha256}".encode()).hexdigest()[:16]
        return Opened(evaluator, read)

    def __init__(
        self,
        space: SearchSpace,
        source: Source,
        size: SizeConfig,
        weights: Path,
        *,
        final_size: SizeConfig | None = None,
        latency: LatencyConfig = ONE_PASS,
        device: str = "auto",
        threads: int | None = None,
        precision: PrecisionRequest = "auto",
        recalibrate: int = RECALIBRATION,
        batch_size: int = 64,
    ) -> None:
        """Raises UsageError where the space is not relaxable or space and data do not fit, NotFoundError for missing
        weights, VerificationError for damaged ones or those of another supernet, MachineError for a missing device."""
        from training.cost import NetworkCosts

        self.space, self.source, self.size, self.task = space, source, size, source.task
        check_kind(space, self.task.kind, source.reference)
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: at least 1 is needed")
        if recalibrate < 1 or batch_size < 2:
            raise UsageError(f"{recalibrate} batches of {batch_size} samples: wanted at least 1 of 2")
        self.device, self.threads = find_device(device), threads
        self.precision = resolve(precision, self.device, self.task.kind)
        self.in_process = self.device.type == "cpu"
        self.batches, self.batch_size = recalibrate, batch_size
        self.supernet = load_supernet(space, self.task, size, weights)
        self._costs = NetworkCosts(space, self.task, final_size or size, self.device, threads, latency)
        means = (
            Metric(f"supernet_{one.name}", one.goal)
            for one in kind_of(self.task).metrics_of(self.task)
            if one.per_sample
        )
        self._learned = (*means, Metric("supernet_loss", "min"))
        self.metrics = (*self._learned, *self._costs.metrics)

    def identity(self, arch: Architecture) -> str | None:
        """Architectures that compute the same functions may still share other weights."""
        return arch.key

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Parameters, MACs and latency at the final size; MACs of a graph network only where its space counts them."""
        return self._costs.of(arch, names)

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """One report. Raises UsageError for a budget; TrialError `nan-loss`, `time-limit`, `out-of-memory` and
        `exception`."""
        from training.fit import trial_failures

        if budget is not None:
            raise UsageError(f"budget {budget:g}: an evaluation on shared weights has none")
        started = time.monotonic()
        static = self.costs(proposal.arch, self._costs.counts)
        with trial_failures():
            _, found = self.inherit(proposal.arch, context.deadline)
        yield Report(1, {**found, **static}, time.monotonic() - started)

    def inherit(self, arch: Architecture, deadline: float | None = None) -> tuple[nn.Module, dict[str, float]]:
        """The stand-alone network of an architecture in the supernet's style, with its shared weights and running
        statistics of its own, in evaluation mode on the device; and its `supernet_loss` and those metrics of the kind
        of task that are means over samples, `supernet_accuracy` say.

        Raises TrialError `nan-loss` where the loss is not finite, `time-limit` past the deadline.
        """
        with thread_count(self.threads), repeatable(self.device, True):
            return self._inherit(arch, deadline)

    def _inherit(self, arch: Architecture, deadline: float | None) -> tuple[nn.Module, dict[str, float]]:
        import torch

        from training.compute import Forward, means
        from training.recalibration import first, recalibrate

        forward = Forward(self.device, self.precision, channels_last=kind_of(self.task).images)
        network = forward.place(self.supernet.extract(arch))

        def answer(batch: Batch) -> Tensor:
            if deadline is not None and time.monotonic() > deadline:
                raise TrialError("time-limit", "the time for this candidate is over")
            output: Tensor = forward(network, batch)
            return output

        recalibrate(network, answer, first(self._data.batches("train", 0, 0), self.batches))
        with torch.no_grad():
            found = means(self._data.metrics(answer(batch), batch) for batch in self._data.batches("valid", 0, 0))
        if not math.isfinite(found["loss"]):
            raise TrialError("nan-loss", f"the loss with the shared weights is {found['loss']}")
        named = {f"supernet_{name}": value for name, value in found.items()}
        return network, {metric.name: named[metric.name] for metric in self._learned}

    @cached_property
    def _data(self) -> Data:
        import torch

        try:
            return self.source.bind(self.device, Loading(batch_size=self.batch_size, channels_last=True))
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the data set does not fit into the memory of {self.device}; use --device cpu"
            ) from error


def load_supernet(space: SearchSpace, task: Task, size: SizeConfig, path: Path) -> Supernet:
    """The supernet whose `state_dict` is at `path` (safetensors), on the CPU, in evaluation mode.

    Raises UsageError for a space that is not relaxable, or not the one that the weights are of, NotFoundError for a
    missing file, VerificationError for one that is damaged or of another supernet.
    """
    import safetensors.torch
    import torch
    from safetensors import SafetensorError, safe_open

    from search_spaces.supernet.supernet import Supernet

    with torch.random.fork_rng(devices=[]):
        supernet = Supernet(space, task, size)
    if not path.is_file():
        raise NotFoundError(f"there are no weights of a supernet at '{path}'; train one with a one-shot strategy")
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get(SPACE, space.name)
        if owner != space.name:
            raise UsageError(
                f"the weights of this supernet are of '{owner}', on which the last round of its search was, and not of "
                f"space '{space.name}': most architectures have none there; evaluate by training (--evaluator train)"
            )
        # A second classifier is of use in training alone.
        head = f"network.{AUXILIARY}."
        supernet.load_state_dict({name: x for name, x in tensors.items() if not name.startswith(head)})
    except (RuntimeError, SafetensorError) as error:
        problem = " ".join(str(error).split())[:300]
        raise VerificationError(f"'{path}' does not hold the weights of this supernet: {problem}") from error
    return supernet.eval()
