"""Settings of evaluators: what a configuration asks for, what a study stores, and what others may know of both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from nas_core.config import Config, SizeConfig
from nas_core.evaluation import Evaluator
from nas_core.frozen import JsonObject
from nas_core.space import SearchSpace
from nas_core.task import Task
from training.data.split import Split
from training.latency import ONE_PASS, LatencyConfig
from training.precision import Precision
from training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Problem:
    """What an evaluator is opened for. Costs are those of networks at `final_size`, None: `size`."""

    space: SearchSpace
    size: SizeConfig
    final_size: SizeConfig | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """The trained supernet of a study, on which candidates of another one can be evaluated. `space` is the reference
    of its space, `size` and `final_size` are the fields of sizes."""

    study: str
    space: str
    space_hash: str | None
    size: JsonObject
    final_size: JsonObject
    task: Task
    data: str
    split: Split
    split_hash: str
    device: str
    precision: Precision
    threads: int
    deterministic: bool
    weights: str  # path
    sha256: str


@dataclass(frozen=True, slots=True)
class Request:
    """What decides an evaluator's settings beside what is asked of it: the problem, the reference of its space with the
    hash of a user's file, the objectives that were named, how many candidates are evaluated at a time, and the
    supernet that was named."""

    problem: Problem
    space: str
    space_hash: str | None
    objectives: tuple[str, ...] = ()
    workers: int = 1
    shared: Shared | None = None


class TrainedOn(Protocol):
    """What a supernet was trained on, and with."""

    @property
    def data(self) -> str: ...
    @property
    def split(self) -> Split: ...
    @property
    def split_hash(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def threads(self) -> int: ...


class Inherited(TrainedOn, Protocol):
    """A trained supernet whose weights candidates are evaluated with."""

    @property
    def study(self) -> str: ...
    @property
    def weights(self) -> str:
        """Path."""
        ...

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an evaluator from its settings alone. A wrapper has those of what it wraps."""

    data: str | None = None  # what networks are trained or evaluated on; of a table: which of its data sets
    split: Split = field(default_factory=Split)
    trains: bool = False
    told: bool = False  # results come from the user: nothing is evaluated here
    looks_up: bool = False  # results were recorded before: no network is built, nothing is measured
    recipe: Recipe | None = None
    metrics: tuple[str, ...] = ()  # of the whole validation part, beside the usual ones
    files: Mapping[str, str] = field(default_factory=dict)  # the user's files of metrics and loss, by their hashes
    device: str | None = None  # None: none is said
    threads: int | None = None
    latency: LatencyConfig = ONE_PASS
    level: float | None = None  # the budget of a proposal that names none; None: the full one
    supernet: Inherited | None = None  # whose weights candidates have
    trial_seconds: float | None = None  # that one candidate may take
    costs: str | None = None  # the table of costs beside it
    screens: tuple[str, ...] = ()  # what turns candidates down
    hosts: tuple[str, ...] = ()  # networks that every candidate is trained in, where they are said


class EvaluatorSettings(Config):
    """What an evaluator is opened from, as a study stores it, told from others by its `kind`. Everything is in it that
    decides what is reported: "auto" is what it has come to where the study was made."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out of records at their defaults, as in records from before the field."""

    kind: str
    trial_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What is known of the evaluator from these settings alone."""

    def at(self, place: str) -> EvaluatorSettings:
        """The same with its data, or its table, at another place."""
        return self

    def costs_at(self, place: str) -> EvaluatorSettings | None:
        """The same with its table of costs at another place; None: it has none."""
        return None

    def on(self, device: str) -> EvaluatorSettings:
        """The same on another device."""
        return self

    def as_stored(self, stored: EvaluatorSettings) -> EvaluatorSettings:
        """The same with what "auto" came to where a study was made: that is what it goes on with on any machine."""
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in self.later}
        return {
            name: value
            for name, value in handler(self).items()
            if name not in defaults or getattr(self, name) != defaults[name]
        }


class Opened(NamedTuple):
    """A live evaluator, and the hash of what it reads."""

    evaluator: Any
    read: str


class Settled(NamedTuple):
    """What a configuration has come to: settings, and the evaluator that was opened to find out, with the hash of what
    it reads. Its costs are of networks at the search size."""

    settings: EvaluatorSettings
    evaluator: Evaluator
    read: str


class EvaluatorOptions(Config):
    """What a configuration may ask of one kind of evaluator: the keys below `evaluator`."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"trial_time": "trial_seconds"}

    kind: str
    trial_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="that one trial may take")

    @property
    def compute(self) -> tuple[str, int | None, bool]:
        """What was asked for of the device, its threads, and repeating bit for bit."""
        return "auto", None, False

    @property
    def supernet(self) -> str | None:
        """The study whose supernet candidates are evaluated on."""
        return None

    def with_all(self, settings: EvaluatorSettings) -> EvaluatorOptions:
        """What asks for these settings whatever the defaults of another version are."""
        return self

    @abstractmethod
    def settle(self, request: Request) -> Settled:
        """Raises UsageError, NotFoundError or MachineError for what does not fit."""
