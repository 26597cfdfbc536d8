"""What is heard of work while it is done. Every event comes after what it tells of has been committed.

A listener is any callable that takes one event; what it does not know it leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nas_core.evaluation import Report
from nas_core.records import Epoch, Verdict


@dataclass(frozen=True, slots=True)
class Started:
    """Run `number` of a `kind` (`nas_core.records`) begins, or goes on; `done` runs of that kind count so far."""

    kind: str
    number: int
    done: int = 0


@dataclass(frozen=True, slots=True)
class Reported:
    """A run has come to a step; `target` is the step of its last report, None where nobody knows."""

    kind: str
    number: int
    report: Report
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run has ended, and its strategy, where it has one, has been told."""

    kind: str
    number: int
    verdict: Verdict
    metrics: Mapping[str, float] = field(default_factory=dict)
    done: int = 0


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """A supernet has been trained for another epoch, of `total`."""

    epoch: Epoch
    total: int


@dataclass(frozen=True, slots=True)
class Counted:
    """So many of `total` parts of some work are done."""

    done: int
    total: int


Event = Started | Reported | Finished | EpochEnded | Counted
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that does nothing."""
