"""Run a study to its end, for `search` and `resume`: progress on stderr, the ending on stdout, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from nas_cli.live import Progress, Tally
from nas_cli.live_supernet import SupernetProgress
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


def run(store: Store, opened: Opened, where: Where, as_json: bool, *, first: bool = False) -> int:
    """Go on with a study until its budget is spent, print how it ended, and return the exit code. Of the `first` of two
    that belong together no JSON document is printed where it has come to its end."""
    from nas_cli.report import print_ending
    from nas_cli.signals import Stopper
    from studies.analysis.queries import summaries
    from studies.search.endings import Ending

    with Stopper() as stopper:
        ending = to_its_end(store, opened, where=where, watching=OnStderr(), stopping=stopper.stopping)
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
