"""The contract of a black-box strategy: `ask` is pure, `tell` is the only change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.config import Config as BaseConfig
from nas_core.evaluation import Budget, Constraint, Objective
from nas_core.space import SearchSpace


class State(StrEnum):
    """The state of a run."""

    WAITING = "waiting"  # proposed, not started
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"  # the reason says why
    REJECTED = "rejected"  # a constraint on costs was violated, or the architecture is illegal
    REUSED = "reused"  # the same candidate had been evaluated before


FINISHED = frozenset({State.COMPLETE, State.FAILED, State.REJECTED, State.REUSED})


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants evaluated. `note` is the strategy's own memory: stored, never interpreted."""

    arch: Architecture
    budget: Budget | None = None
    note: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposal whose outcome has not been told yet."""

    number: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a proposal.

    `values`: one per objective, oriented so that higher is better; None where nothing was measured.
    `violations`: one per constraint, relative, <= 0 is feasible; present for rejected candidates too, and
    empty for failed ones.
    """

    number: int
    proposal: Proposal
    state: State
    values: tuple[float, ...] | None
    violations: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def violation(self) -> float:
        """How much the constraints are violated in total; 0 is feasible."""
        return sum(max(0.0, violation) for violation in self.violations)


@dataclass(frozen=True, slots=True)
class Setting:
    """The problem a strategy is given. `identity` says which architectures are the same candidate."""

    space: SearchSpace
    seed: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    identity: Callable[[Architecture], str] = field(default=lambda arch: arch.key)


class Exhausted(Exception):
    """Raised by `ask` when there is nothing left to propose."""


class Strategy(Protocol):
    """A black-box strategy, made as `Strategy(setting, config)`.

    The rule: after construction and tells in recorded order it cannot be told apart, through `ask`, from
    one that lived all along. `number` seeds randomness and names the trial, nothing else; how far the
    search has come is `len(told) + len(pending)`. Numbers may have gaps.
    """

    Config: ClassVar[type[BaseConfig]]

    def __init__(self, setting: Setting, config: Any) -> None: ...

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        """The proposal for this number; changes nothing. None: wait for a tell. Raises Exhausted."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """Learn from an outcome; called once per proposal, in the order of the study."""
        ...
