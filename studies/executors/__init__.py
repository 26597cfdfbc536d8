"""Where candidates are evaluated: inline, in local processes, or on a simulated clock. Each is one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.failures import Failure
from nas_core.strategy import Proposal


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation. `budget` (None: the full one) and `target`, the step of the final report, are resolved; `seed`
    `workdir` and `keep` are those of the run's context; `asked_after` is how many outcomes were told before it was
    asked."""

    number: int
    proposal: Proposal
    budget: float | None
    target: float
    seed: int
    workdir: Path
    asked_after: int
    keep: bool = False

    def packed(self) -> dict[str, Any]:
        """As plain data, which `of_packed` reads."""
        proposal = self.proposal
        return {
            "number": self.number,
            "arch": proposal.arch.to_json(),
            "budget": self.budget,
            "proposed_budget": proposal.budget,
            "continues": proposal.continues,
            "note": dict(proposal.note),
            "transfer": proposal.transfer,
            "target": self.target,
            "seed": self.seed,
            "workdir": str(self.workdir.absolute()),
            "asked_after": self.asked_after,
            "keep": self.keep,
        }

    @classmethod
    def of_packed(cls, packed: Mapping[str, Any]) -> Self:
        arch = Architecture.from_json(packed["arch"])
        how = (packed["proposed_budget"], packed["continues"], packed["note"], packed["transfer"])
        proposal = Proposal(arch, *how)
        place, names = Path(packed["workdir"]), ("number", "budget", "target", "seed", "asked_after", "keep")
        return cls(proposal=proposal, workdir=place, **{name: packed[name] for name in names})


@dataclass(frozen=True, slots=True)
class Reported:
    """A candidate has come to a step."""

    number: int
    report: Report


@dataclass(frozen=True, slots=True)
class Ended:
    """A candidate's evaluation is over; `failure` says why it failed, None: it has not."""

    number: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Halted:
    """A candidate was stopped because the search stops; it goes on from its checkpoint later."""

    number: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A candidate has come to its turn in another process. An executor without other processes says nothing."""

    number: int


@dataclass(frozen=True, slots=True)
class Died:
    """The process that evaluated a candidate has ended without a word; `cause` says how. It may be submitted again."""

    number: int
    cause: str


Event = Reported | Ended | Halted | Begun | Died


class Executor(Protocol):
    """Evaluates up to `slots` jobs at a time; `apart`: in other processes, which say when each has begun."""

    slots: int
    apart: bool

    def submit(self, job: Job) -> None:
        """Start a job; at most `slots` at a time."""
        ...

    def next(self, stopping: Callable[[], bool]) -> Event:
        """Wait for what happens next. Once `stopping()` is true every job ends with `Halted`, at its next checkpoint,
        or with `Ended` if that comes first. Raises NasError for what spoils the search and not the candidate."""
        ...

    def drop(self, number: int) -> None:
        """Forget a job: nothing more is heard of it."""
        ...

    def told(self, number: int, asked_after: int, seconds: float) -> None:
        """Hear of every outcome that the strategy is told, also of those that a resume tells again."""
        ...

    def close(self) -> None:
        """End at once, with everything that runs."""
        ...
