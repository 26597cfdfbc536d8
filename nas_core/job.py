"""A job: what a stored run does. Plain settings in, reports and a result out; it goes on from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nas_core.architecture import Architecture
from nas_core.evaluation import Budget, Context, Report
from nas_core.model import UNCHANGED, Changes
from nas_core.proposal import Proposal


class Work(Protocol):
    """What an executor does with a proposal: an evaluator, or a job."""

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """Reports, the last of which is final; a checkpoint in `context.workdir` is continued.

        A generator: closing it stops the work. `TrialError` fails the run, and whatever called it goes on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished job has left in its folder: files by kind, and in what its network differs from its space's; and
    the architectures that it has derived, best first."""

    files: Mapping[str, Path] = field(default_factory=dict)
    changes: Changes = UNCHANGED
    architectures: tuple[Architecture, ...] = ()


class Job(Work, Protocol):
    """Work on a network, a run's or a supernet, with settings that are plain data."""

    @property
    def kind(self) -> str:
        """Of the runs that it makes."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes two of them the same."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What is stored beside the settings."""
        ...

    @property
    def steps(self) -> float:
        """The step of the last report."""
        ...

    def result(self, workdir: Path) -> Result:
        """What is in the folder of one that has ended."""
        ...
