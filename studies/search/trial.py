"""A trial between its proposal and its tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nas_core.evaluation import Report
from nas_core.records import Verdict
from nas_core.strategy import Outcome, Proposal, State

EVALUATED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED})  # states that `--trials` counts


def paid(verdict: Verdict) -> bool:
    """Whether a candidate was rejected by its evaluation: what is rejected before takes no time."""
    return verdict.state == State.REJECTED and verdict.seconds is not None


Curve = list[tuple[float, float]]


class Asked(Protocol):
    """What says how far a candidate is evaluated: a proposal, or what is remembered of one."""

    @property
    def budget(self) -> float | None: ...

    @property
    def continues(self) -> int | None: ...

    @property
    def transfer(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the loop itself remembers of an outcome: no architecture, no metrics. `value`: the first objective, None
    where it is not feasible; `reached`: the last step of a trial whose curve is kept, or which its evaluation has
    rejected (`paid`)."""

    number: int
    key: str
    identity: str
    budget: float | None
    continues: int | None
    state: State
    value: float | None
    reuses: int | None
    reached: float | None
    paid: bool
    transfer: int | None


@dataclass(slots=True)
class Trial:
    """A trial that has not been told yet."""

    number: int
    run: int  # its id in the store; 0: it is not stored yet
    proposal: Proposal
    identity: str
    verdict: Verdict
    reuses: int | None
    metrics: Mapping[str, float]
    asked_after: int
    curve: Curve = field(default_factory=list)  # (step, first objective), oriented; only where it may end early
    last: Report | None = None  # of the evaluation that runs
    tries: int = 0  # attempts begun since the furthest report
    begun: bool = False  # the attempt that runs is one of them
    furthest: float = -math.inf  # step that any attempt has reported
    several: bool = False  # whether there was a report before the last one

    @property
    def finished(self) -> bool:
        return self.verdict.state not in (State.WAITING, State.RUNNING)

    @property
    def counts(self) -> bool:
        """Whether it is one of the `--trials` evaluations, as far as was known when it was asked."""
        return self.reuses is None and (self.verdict.state != State.REJECTED or self.paid is not None)

    @property
    def paid(self) -> float | None:
        """The step that the evaluation came to which rejected it; None: it was not rejected, or before any."""
        return max(self.furthest, 0.0) if paid(self.verdict) else None

    def outcome(self) -> Outcome:
        """What the strategy is told of it."""
        verdict, metrics = self.verdict, dict(self.metrics)
        return Outcome(self.number, self.proposal, verdict.state, verdict.values, verdict.violations, metrics)

    def told(self) -> Told:
        """What the loop remembers of it."""
        verdict, proposal, paid = self.verdict, self.proposal, self.paid
        return Told(
            *(self.number, proposal.arch.key, self.identity, proposal.budget, proposal.continues, verdict.state),
            verdict.values[0] if verdict.values and verdict.feasible else None,
            self.reuses,
            self.curve[-1][0] if self.curve else paid,
            paid is not None,
            proposal.transfer,
        )
