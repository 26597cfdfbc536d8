"""The contract of a black-box strategy: `ask` is pure, `tell` is the only change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.config import SizeConfig
from nas_core.deprecated import renamed, told
from nas_core.evaluation import Constraint, Fidelity, Objective
from nas_core.proposal import Proposal
from nas_core.space import SearchSpace
from nas_core.task import Task

if TYPE_CHECKING:
    from numpy.random import Generator


class State(StrEnum):
    """The state of a run."""

    WAITING = "waiting"  # proposed, not started
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped early; its values are those of its last report
    FAILED = "failed"  # the reason says why
    REJECTED = "rejected"  # illegal or unsound, a constraint on costs was violated, or a screen turned it down
    REUSED = "reused"  # the same candidate had been evaluated before


FINISHED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED, State.REJECTED, State.REUSED})


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


@renamed(prior="warm_start", kept="cache")
@dataclass(frozen=True, slots=True)
class Setting:
    """The problem a strategy is given. `identity` says which architectures are the same candidate; `fidelity` which
    budgets a proposal may name, None where there is one only.

    `score(predictor, archs)` gives zero-cost scores, one per architecture, higher is better, minus infinity is the
    worst: always the same for the same architecture, and recorded, so that a replay computes none. It raises
    UsageError for a predictor that gives none here; None: this search has no scores. `warm_start` are architectures of
    another study with their first objective, oriented, on whatever scale that study had. `cache` is where to put what
    takes long to make and depends on its key alone, such as a generator trained on a space: plain data and arrays as in
    `Snapshots`, which other searches find there; to lose it costs time only. `network` are task and size of the network
    that the user gets, whose costs are bounded; None: those of what the strategy trains itself.
    """

    space: SearchSpace
    seed: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    identity: Callable[[Architecture], str] = field(default=lambda arch: arch.key)
    fidelity: Fidelity | None = None
    score: Callable[[str, Sequence[Architecture]], Sequence[float]] | None = None
    warm_start: tuple[tuple[Architecture, float], ...] = ()
    network: tuple[Task, SizeConfig] | None = None
    cache: MutableMapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False, compare=False)


class Exhausted(Exception):
    """Raised by `ask` when there is nothing left to propose."""


class Strategy(Protocol):
    """A black-box strategy, made as `Strategy(setting, config)`.

    The rule: after construction and tells in recorded order it cannot be told apart, through `ask`, from
    one that lived all along. `number` seeds randomness and names the trial, nothing else; how far the
    search has come is `len(told) + len(pending)`. Numbers may have gaps.

    Raises UsageError, when made, for a setting that it cannot handle.
    """

    Config: ClassVar[type[BaseConfig]]

    def __init__(self, setting: Setting, config: Any) -> None: ...

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        """The proposal for this number; changes nothing. None: wait for a tell. Raises Exhausted."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """Learn from an outcome; called once per proposal, in the order of the study."""
        ...


@runtime_checkable
class UsesWarmStart(Protocol):
    """A strategy that learns from `Setting.warm_start`; a search with another one refuses a warm start."""

    uses_warm_start: ClassVar[bool]


def uses_warm_start(strategy: type) -> bool:
    """Whether a strategy learns from another study, as it says itself (`UsesWarmStart`)."""
    if hasattr(strategy, "uses_prior"):
        told(f"{strategy.__name__}.uses_prior", "uses_warm_start")
        return bool(strategy.uses_prior)
    return isinstance(strategy, UsesWarmStart)


@runtime_checkable
class Transfers(Protocol):
    """A strategy whose proposals may begin with the weights of trials before (`Proposal.transfer`)."""

    def donors(self) -> Collection[int] | None:
        """The told trials whose weights a later proposal may begin with, as far as it was told; the weights of all
        others are removed, and do not come back. None, always: with its settings no proposal ever does."""
        ...


def donors_of(strategy: Strategy) -> Collection[int] | None:
    """The trials whose weights a strategy may ask for; None: it never asks for any."""
    return strategy.donors() if isinstance(strategy, Transfers) else None


class Pruner(Protocol):
    """Ends candidates that will not be worth their full budget."""

    def prune(self, curve: Sequence[tuple[float, float]], others: Sequence[Sequence[tuple[float, float]]]) -> bool:
        """Whether to stop a candidate, by its own (step, value) reports so far and those of the outcomes that had been
        told before it was asked, in their order (empty for what is not complete). Values are the first objective,
        higher is better. Pure."""
        ...


@runtime_checkable
class Snapshots(Protocol):
    """Where replaying the tells is slow: the whole state as plain data and arrays.

    `load_state_dict` on a new instance must leave it as if it had been told everything.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Nested dicts (keys are text) and lists of text, numbers, truth values, None, and numpy arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A condition on a number that belongs to an architecture, such as its parameters: at most (`at_most`) or at least
    `limit`; `archs` with their `values` are examples that show how it depends on the architecture."""

    archs: tuple[Architecture, ...]
    values: tuple[float, ...]
    limit: float
    at_most: bool


@runtime_checkable
class Generates(Protocol):
    """A strategy with a generator of architectures, trained by what it was told."""

    def generate(self, count: int, rng: Generator, wanted: Sequence[Wanted] = ()) -> list[Architecture]:
        """`count` legal architectures, not all of them different or new, that are likely good and likely as wanted;
        changes nothing."""
        ...
