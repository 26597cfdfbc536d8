"""Studies as the store takes and hands them out; what they consist of is in `nas_core.records`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from nas_core.choice import Value
from nas_core.config import Config
from nas_core.frozen import JsonObject
from nas_core.records import StopAt
from nas_core.task import Task
from training.data.split import Split
from training.evaluators.kinds import stored
from training.evaluators.settings import EvaluatorSettings


class EarlyStop(Config):
    """What stops single trainings early."""

    name: str  # the reference
    config: JsonObject


class RecordedScores(Config):
    """Scores of predictors come from a table."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"from": "kind"}

    kind: Literal["table"] = "table"
    table: str
    mapping: str | None
    hash: str


class NetworkScores(Config):
    """Scores of predictors come from untrained networks. `data` None: what candidates are trained on."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"from": "kind"}

    kind: Literal["networks"] = "networks"
    data: str | None
    batch: int


class SupernetSettings(Config):
    """What a one-shot search trains its supernet on, and with. What came later is None in a study of before."""

    data: str
    split: Split
    split_hash: str
    learns_on: str | None = None  # what the architecture is learned on, in words
    device: str
    precision: Literal["float32", "bf16"]
    threads: int
    deterministic: bool


class StudySpec(Config):
    """Everything that decides the trajectory of a study. Two searches with equal specs are one study."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"pruner": "early_stop", "prior": "warm_start"}

    space: str  # the reference
    space_name: str
    space_version: int
    space_hash: str | None
    size: JsonObject
    strategy: str
    strategy_config: JsonObject
    evaluator: Annotated[SerializeAsAny[EvaluatorSettings], BeforeValidator(stored)]
    task: Task
    split_hash: str
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    seed: int
    lag: int
    ordering: Literal["strict", "free"] = "strict"
    early_stop: EarlyStop | None = None
    scoring: RecordedScores | NetworkScores | None = None  # where the scores of predictors come from
    warm_start: tuple[tuple[dict[str, Value], float], ...] | None = None  # see `Setting.warm_start`
    supernet: SupernetSettings | None = None  # of a one-shot search
    final_size: JsonObject | None = None  # of the network that the user gets; see `final_size_of`
    inputs: JsonObject | None = None  # what its networks need to know of their inputs: `training.inputs`
    files: dict[str, str] | None = None  # hashes of the user's files that strategy and predictors are in, by path


def final_size_of(spec: StudySpec) -> JsonObject:
    """The size whose costs a study's objectives and constraints are about, and that a training of its result builds, as
    the fields of the space's `Size`. A study stored before there were final sizes has its search size."""
    return spec.size if spec.final_size is None else spec.final_size


# Fields that came later, None in a study stored before, with what such a study did in their place.
_LATER: Mapping[str, Callable[[StudySpec], Any]] = {"final_size": final_size_of}


def as_stored(wanted: StudySpec, stored: StudySpec, asked: Collection[str] = ()) -> StudySpec:
    """`wanted` without the fields that `stored` is too old to have: a default that came later does not make the same
    command another study. A field that the user `asked` for stays, unless it says what the stored study did."""
    lacking = [name for name in _LATER if getattr(stored, name) is None]
    same = [name for name in lacking if name not in asked or getattr(wanted, name) == _LATER[name](stored)]
    # Inputs follow from the data, which are compared by their hash.
    changes: dict[str, Any] = {**dict.fromkeys(same), "inputs": stored.inputs}
    if stored.files is None:
        changes["files"] = None
    # What "auto" came to on the machine where the study was made is what it goes on with on any other.
    changes["evaluator"] = wanted.evaluator.as_stored(stored.evaluator)
    if wanted.supernet and stored.supernet and "supernet" not in asked:
        changes["supernet"] = wanted.supernet.model_copy(update={"precision": stored.supernet.precision})
    return wanted.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Study:
    """A named, stored search."""

    id: int
    name: str
    spec: StudySpec
    stop_at: StopAt
    created: float
    bench: int | None = None  # the bench whose child it is
    measured: Mapping[str, float] = field(default_factory=dict)  # what that bench measured of it
