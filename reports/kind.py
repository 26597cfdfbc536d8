"""What a kind of figure is, and what it is drawn of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nas_core.errors import UsageError
from nas_core.records import Bench, Run
from reports.figure import Figure
from studies.analysis.queries import best_trial
from studies.documents import View
from studies.records import Study
from studies.store.store import Store

if TYPE_CHECKING:
    from reports.mirrored import Mirrored


@dataclass(frozen=True)
class Subject:
    """A study, a `run` of it (a trial, a baseline, a training or compression of one; `trial` is whose), or a bench."""

    store: Store
    address: str
    study: Study | None = None
    trial: Run | None = None
    run: Run | None = None
    bench: Bench | None = None

    @cached_property
    def view(self) -> View:
        """The study with its space. Raises UsageError for a bench."""
        return View.of(self.searched)

    @property
    def searched(self) -> Study:
        """The study. Raises UsageError for a bench."""
        if self.study is None:
            raise UsageError(f"'{self.address}' is a bench, and a study is needed here")
        return self.study


@dataclass(frozen=True, slots=True)
class Kind:
    """`why_not`: why a subject cannot have the figure, in words that go on with its name ('has no supernet'), None
    where it can; cheap. `make` is called where it can; raises NotFoundError where the store holds nothing of it yet."""

    about: str
    why_not: Callable[[Subject], str | None]
    make: Callable[[Subject], Figure | Mirrored]


def run_of(subject: Subject) -> Run:
    """The run that is named, else the best trial. Raises like `best_trial`."""
    return best_trial(subject.store, subject.searched) if subject.run is None else subject.run


def of_study(subject: Subject) -> str | None:
    """Why a subject is not the whole of a search."""
    if subject.study is None:
        return "is a bench"
    return None if subject.run is None else f"is one run of '{subject.study.name}'"


def of_runs(subject: Subject) -> str | None:
    """Why a subject is neither a search nor one run of it."""
    return "is a bench" if subject.study is None else None


def of_bench(subject: Subject) -> str | None:
    """Why a subject compares no strategies."""
    return "is no bench" if subject.bench is None else None
