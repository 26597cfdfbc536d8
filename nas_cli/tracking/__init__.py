"""`--track PROGRAM:PLACE`: what a search stores is shown in programs that people keep their experiments in.

A program is one file of this folder and one line of `TRACKERS`. What it is told comes from the store, after it is
there: values are the store's. Trials that it does not know of yet are told when a search begins, so that whatever
stops it, the next `nas resume STUDY --track ...` brings it up to date.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nas_core.errors import MachineError, UsageError, unknown
from nas_core.strategy import State
from studies.address import address_of
from studies.events import Event, Finished, Listener
from studies.search.start import Watching

if TYPE_CHECKING:
    from nas_core.evaluation import Report
    from nas_core.records import Run
    from studies.search.start import Opened
    from studies.store.store import Store

TRACKERS: Mapping[str, str] = {
    "tensorboard": "nas_cli.tracking.tensorboard:TensorBoard",
    "mlflow": "nas_cli.tracking.mlflow:MlFlow",
    "wandb": "nas_cli.tracking.wandb:Wandb",
}
TOLD = frozenset({State.COMPLETE, State.PRUNED, State.FAILED})  # rejected ones have cost nothing, and are many


@dataclass(frozen=True)
class Tracked:
    """A trial that has ended: its `address` STUDY:N, its choices, its reports in the order of their steps."""

    number: int
    address: str
    state: str
    reason: str | None
    choices: Mapping[str, Any]
    curve: Sequence[Report]
    metrics: Mapping[str, float]

    def steps(self) -> Iterator[tuple[int, Report]]:
        """Reports by whole numbers: their steps where all of these are, else their places from 1 on."""
        whole = all(report.step == round(report.step) for report in self.curve)
        for place, report in enumerate(self.curve, 1):
            yield (round(report.step) if whole else place), report


class Tracker(Protocol):
    """Made by `(place, study)`, the place as it was given and the study's name. Raises MachineError where its package
    is missing, or its place cannot be used."""

    def known(self) -> Collection[int]:
        """The numbers of the trials that it has whole; what it has of others is taken away."""
        ...

    def add(self, trial: Tracked) -> None:
        """Once it returns, the trial is known."""
        ...

    def close(self) -> None: ...


Made = Callable[[str], Tracker]
"""Of the name of a study."""


def tracker(reference: str) -> Made:
    """What makes the tracker `PROGRAM:PLACE` for a study. Raises UsageError for an unknown one, or without a place."""
    name, _, place = reference.partition(":")
    if name not in TRACKERS:
        raise unknown("program to --track in", name, TRACKERS)
    if not place:
        raise UsageError(f"--track {reference}: say where, {name}:PLACE")
    module, _, kind = TRACKERS[name].partition(":")

    def made(study: str) -> Tracker:
        try:
            found: Tracker = getattr(importlib.import_module(module), kind)(place, study)
        except ModuleNotFoundError as error:
            raise MachineError(
                f"--track {name}: the package '{error.name}' is missing; python -m pip install 'nas-search[{name}]'"
            ) from error
        return found

    return made


class Tracking(Watching):
    """Tells a tracker of the trials of a search. Where the tracker fails, that is said once and the search goes on."""

    def __init__(self, store: Store, made: Made, name: str) -> None:
        self._store, self._made, self._name = store, made, name

    @contextmanager
    def search(self, opened: Opened, evaluated: int, best: tuple[float, int] | None) -> Iterator[Listener]:
        """Raises MachineError where the tracker cannot be used at all."""
        study = opened.study
        told: Tracker | None = self._made(study.name)

        def tell(runs: Iterator[Run]) -> None:
            nonlocal told
            if told is None:
                return
            try:
                known = told.known()
                for run in runs:
                    if run.state in TOLD and run.number not in known:
                        told.add(self._tracked(address_of(study, run), run))
            except Exception as error:  # whatever the package raises: the search does not depend on it
                text = " ".join(str(error).split())
                print(
                    f"nas: warning: --track {self._name} has stopped: {type(error).__name__}: {text}; what is missing "
                    f"there is added by nas resume {study.name} --track ...",
                    file=sys.stderr,
                )
                told = None

        def heard(event: Event) -> None:
            if isinstance(event, Finished):
                tell(self._store.some_trials(study, [event.number]))

        tell(self._store.trials(study, metrics=True))
        try:
            yield heard
        finally:
            if told is not None:
                told.close()

    def _tracked(self, address: str, run: Run) -> Tracked:
        curve, reason = self._store.curve(run), run.verdict.reason
        return Tracked(run.number, address, str(run.state), reason, run.arch.values, curve, dict(run.metrics))
