"""What a store takes and hands out: frozen records. Rows never leave the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.config import Config
from nas_core.model import UNCHANGED, Changes
from nas_core.strategy import FINISHED, Outcome, Proposal, State
from nas_core.task import Task

TRIAL = "trial"
RETRAIN = "retrain"
COMPRESS = "compress"


class StopAt(Config):
    """When a search ends: after so many evaluations, so many seconds, or when the budgets spent add up to so many full
    evaluations (5 of 20 epochs are a quarter). A resume may raise it."""

    trials: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    spent: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class StudySpec(Config):
    """Everything that decides the trajectory of a study. Two searches with equal specs are one study."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"pruner": "early_stop", "prior": "warm_start"}

    space: str  # the reference
    space_name: str
    space_version: int
    space_hash: str | None
    size: dict[str, Any]
    strategy: str
    strategy_config: dict[str, Any]
    evaluator: dict[str, Any]
    task: Task
    split_hash: str
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    seed: int
    lag: int
    ordering: Literal["strict", "free"] = "strict"
    early_stop: dict[str, Any] | None = None
    scoring: dict[str, Any] | None = None  # where the scores of predictors come from
    warm_start: tuple[tuple[dict[str, Value], float], ...] | None = None  # see `Setting.warm_start`
    supernet: dict[str, Any] | None = None  # of a one-shot search: what its supernet is trained on, and with
    final_size: dict[str, Any] | None = None  # of the network that the user gets; see `final_size_of`
    inputs: dict[str, Any] | None = None  # what its networks need to know of their inputs: `training.inputs`


def final_size_of(spec: StudySpec) -> dict[str, Any]:
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
    changes = {**dict.fromkeys(same), "inputs": stored.inputs}
    # What "auto" came to on the machine where the study was made is what it goes on with on any other.
    auto = _recipe_of(wanted).get("precision") == _recipe_of(stored).get("precision") == "auto"
    if auto and "precision" in stored.evaluator:
        changes["evaluator"] = {**wanted.evaluator, "precision": stored.evaluator["precision"]}
    if wanted.supernet and stored.supernet and "precision" in stored.supernet and "supernet" not in asked:
        changes["supernet"] = {**wanted.supernet, "precision": stored.supernet["precision"]}
    return wanted.model_copy(update=changes)


def _recipe_of(spec: StudySpec) -> Mapping[str, Any]:
    recipe: Mapping[str, Any] = spec.evaluator.get("recipe") or {}
    return recipe


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


@dataclass(frozen=True, slots=True)
class Bench:
    """A comparison of strategies, whose child studies are named `BENCH/STRATEGY/SEED`."""

    id: int
    name: str
    config: Mapping[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evaluation came to: the part of a run that a strategy is told, and where an exception came from."""

    state: State
    reason: str | None = None
    values: tuple[float, ...] | None = None
    violations: tuple[float, ...] = ()
    seconds: float | None = None
    traceback: str | None = None

    @property
    def feasible(self) -> bool:
        return self.values is not None and all(violation <= 0 for violation in self.violations)


@dataclass(frozen=True, slots=True)
class Run:
    """One stored piece of work. `metrics` are those of the last step, where they were asked for; `tries` counts
    the attempts begun since its last report: more than one where processes have ended in it without a word; `changes`
    are those of the network that it left."""

    id: int
    kind: str
    number: int
    parent: int | None
    proposal: Proposal
    identity: str
    repeat: int
    recipe: Mapping[str, Any] | None
    verdict: Verdict
    reuses: int | None
    attempt: int
    asked_after: int | None
    told: int | None
    started: float | None
    ended: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tries: int = 0
    changes: Changes = UNCHANGED

    @property
    def arch(self) -> Architecture:
        return self.proposal.arch

    @property
    def state(self) -> State:
        return self.verdict.state

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def recipe_name(self) -> str | None:
        """Of a retraining: what its recipe is called."""
        return None if self.recipe is None else self.recipe.get("recipe_name")

    @property
    def note(self) -> Mapping[str, Value]:
        return self.proposal.note

    def outcome(self) -> Outcome:
        """What the strategy is told of it."""
        verdict = self.verdict
        return Outcome(self.number, self.proposal, verdict.state, verdict.values, verdict.violations, self.metrics)


@dataclass(frozen=True, slots=True)
class SupernetRun:
    """The supernet of a one-shot study. `result` are the derived architectures, best first: None while it is trained,
    empty where the supernet itself is the result."""

    state: State
    reason: str | None
    attempt: int
    result: tuple[Architecture, ...] | None
    weights: Path | None
    sha256: str | None
    seconds: float | None
    tries: int = 0  # attempts begun since its last epoch
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch of a supernet's training came to; `number` counts finished epochs. See `one_shot.Progress`."""

    number: int
    arch: Architecture | None
    metrics: Mapping[str, float]
    strengths: Mapping[str, tuple[float, ...]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run; `path` is relative to the folder of the store's files."""

    run: int
    kind: str
    path: str
    sha256: str
    created: float
