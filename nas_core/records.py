"""What a store takes and hands out: frozen records. Rows never leave the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.config import Config
from nas_core.evaluation import Report
from nas_core.model import UNCHANGED, Changes
from nas_core.strategy import FINISHED, Outcome, Proposal, State

TRIAL = "trial"
RETRAIN = "retrain"
COMPRESS = "compress"
SUPERNET = "supernet"
GENERATOR = "generator"
BASELINE = "baseline"


class StopAt(Config):
    """When a search ends: after so many evaluations, so many seconds, or when the budgets spent add up to so many full
    evaluations (5 of 20 epochs are a quarter). A resume may raise it."""

    trials: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    spent: float | None = Field(default=None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Bench:
    """A comparison of strategies, whose child studies are named `BENCH/STRATEGY/SEED`."""

    id: int
    name: str
    config: Mapping[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A known architecture that a study's results are compared with, by its name."""

    name: str
    arch: Architecture
    identity: str


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


@dataclass(slots=True)
class Proposed:
    """A trial that is not stored yet. The verdict's state is RUNNING when the evaluation starts at once, WAITING when
    it does not, or final (rejected, reused), with a report where there is one. `told`: its position among those that
    the strategy was told of; `tells`: another run and its position, told since the last proposal."""

    number: int
    proposal: Proposal
    identity: str
    verdict: Verdict
    reuses: int | None = None
    report: Report | None = None
    asked_after: int | None = None
    environment: int | None = None
    tries: int = 0
    told: int | None = None
    tells: tuple[int, int] | None = None


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
