"""Run a study to its end, for `search` and `resume`: progress on stderr, the ending on stdout, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_cli.live import Progress, Tally
from nas_cli.live_supernet import SupernetProgress
from nas_cli.notify import Notifier
from nas_cli.tracking import Tracking, tracker
from studies.events import Event, Listener
from studies.search.start import Watching
from studies.search.start import run as to_its_end

if TYPE_CHECKING:
    from studies.executors.where import Where
    from studies.search.start import Opened
    from studies.store.store import Store


class OnStderr(Watching):
    """Live progress."""

    def supernet(self, opened: Opened) -> AbstractContextManager[SupernetProgress]:
        objects = opened.objects
        assert objects.supernet is not None
        return SupernetProgress(opened.study.name, objects.space, objects.size, objects.supernet.source.task)

    @contextmanager
    def baselines(self, opened: Opened) -> Iterator[Tally]:
        tally = Tally(opened.study.name, "baselines evaluated")
        try:
            yield tally
        finally:
            tally.end()

    def search(
        self, opened: Opened, evaluated: int, best: tuple[float, int] | None
    ) -> AbstractContextManager[Progress]:
        study, objects = opened.study, opened.objects
        trials, fidelity = study.stop_at.trials, objects.evaluator.fidelity
        progress = Progress(study.name, objects.objectives, trials, fidelity)
        progress.known(evaluated, best)
        return progress

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


class Together(Watching):
    """Several faces of one study."""

    def __init__(self, *faces: Watching) -> None:
        self._faces = faces

    @contextmanager
    def supernet(self, opened: Opened) -> Iterator[Listener]:
        with ExitStack() as stack:
            yield _each([stack.enter_context(face.supernet(opened)) for face in self._faces])

    @contextmanager
    def baselines(self, opened: Opened) -> Iterator[Listener]:
        with ExitStack() as stack:
            yield _each([stack.enter_context(face.baselines(opened)) for face in self._faces])

    @contextmanager
    def search(self, opened: Opened, evaluated: int, best: tuple[float, int] | None) -> Iterator[Listener]:
        with ExitStack() as stack:
            yield _each([stack.enter_context(face.search(opened, evaluated, best)) for face in self._faces])

    def say(self, text: str) -> None:
        for face in self._faces:
            face.say(text)


def _each(listeners: Sequence[Listener]) -> Listener:
    def heard(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return heard


@dataclass(frozen=True)
class Beside:
    """Who else hears of a search: the command `--notify`, and the programs `--track` names. Raises UsageError for those
    that there are not."""

    notify: str | None = None
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for reference in self.track:
            tracker(reference)


ALONE = Beside()


def run(
    store: Store, opened: Opened, where: Where, as_json: bool, *, beside: Beside = ALONE, first: bool = False
) -> int:
    """Go on with a study until its budget is spent, print how it ended, and return the exit code. Of the `first` of two
    that belong together no JSON document is printed where it has come to its end."""
    from nas_cli.ending import print_ending
    from nas_cli.signals import Stopper
    from studies.analysis.queries import summaries
    from studies.search.endings import Ending

    with ExitStack() as stack:
        notifier = None if beside.notify is None else stack.enter_context(Notifier(beside.notify, opened.study.name))
        tracking = [Tracking(store, tracker(reference), reference.partition(":")[0]) for reference in beside.track]
        watching = Together(OnStderr(), *tracking, *([] if notifier is None else [notifier]))
        stopper = stack.enter_context(Stopper())
        ending = to_its_end(store, opened, where=where, watching=watching, stopping=stopper.stopping)
        if notifier is not None:
            notifier.ended(ending)
    study = store.study(opened.study.name)
    if not (first and as_json and ending in (Ending.SUPERNET, Ending.DERIVED)):
        print_ending(store, study, ending, as_json)
    if ending == Ending.INTERRUPTED:
        return stopper.code
    if ending == Ending.SUPERNET:
        return 0
    summary = next(summary for summary in summaries(store) if summary.name == study.name)
    if summary.best is not None:
        return 0
    if summary.states.get("complete") or (summary.states.get("rejected") and not summary.states.get("failed")):
        return 4
    return 1 if summary.states.get("failed") else 0
