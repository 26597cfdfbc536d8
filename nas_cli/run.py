"""Run a study to its end, for `search` and `resume`: train its supernet where it has one, then evaluate candidates."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from nas_cli.errors import INTERRUPTED

if TYPE_CHECKING:
    from nas_cli.signals import Stopper
    from nas_core.records import StopAt, Study
    from studies.search.loop import Ending
    from studies.setup.assemble import StudyObjects
    from studies.store.store import Store


def run(
    store: Store, study: Study, parts: StudyObjects, budget: StopAt, workers: int, as_json: bool, *, first: bool = False
) -> int:
    """Go on with a study until its budget is spent, print how it ended, and return the exit code. Of the `first` of two
    that belong together no JSON document is printed where it has come to its end."""
    from nas_cli.report import print_ending
    from nas_cli.signals import Stopper
    from studies.analysis.queries import summaries
    from studies.environment import environment
    from studies.search.loop import Ending

    if workers > study.spec.lag and study.spec.ordering == "strict":
        print(
            f"the study's lag is {study.spec.lag}, so no more than that of {workers} workers are busy", file=sys.stderr
        )
    with store.lock(study):
        if budget != study.stop_at:
            store.set_stop_at(study, budget)
            study = replace(study, stop_at=budget)
        facts = store.environment(environment(study.spec))
        with Stopper() as stopper:
            try:
                ending = _train(store, study, parts, stopper, facts)
                if ending is None:
                    ending = _search(store, study, parts, workers, stopper, facts)
            except KeyboardInterrupt:  # the second one: at once
                ending = Ending.INTERRUPTED
    if not (first and as_json and ending in (Ending.SUPERNET, Ending.DERIVED)):
        print_ending(store, study, ending, as_json)
    if ending == Ending.INTERRUPTED:
        return INTERRUPTED
    if ending == Ending.SUPERNET:
        return 0
    summary = next(summary for summary in summaries(store) if summary.name == study.name)
    if summary.best is not None:
        return 0
    if summary.states.get("complete") or (summary.states.get("rejected") and not summary.states.get("failed")):
        return 4
    return 1 if summary.states.get("failed") else 0


def _train(store: Store, study: Study, parts: StudyObjects, stopper: Stopper, environment: int) -> Ending | None:
    """Train the study's supernet; None: there is none, or it has derived what to evaluate."""
    from nas_cli.live_supernet import SupernetProgress
    from studies.search.loop import Ending
    from studies.search.supernet import SupernetTraining
    from studies.store import supernets

    if parts.supernet is None:
        return None
    with SupernetProgress(study.name, parts.space, parts.size, parts.supernet.source.task) as progress:
        ending = SupernetTraining(
            store, study, parts.supernet, listener=progress, stopping=stopper.stopping, environment=environment
        ).run(study.stop_at.seconds)
    if ending is not None:
        return ending
    found = supernets.find(store, study)
    assert found is not None
    return None if found.result else Ending.SUPERNET


def _search(
    store: Store, study: Study, parts: StudyObjects, workers: int, stopper: Stopper, environment: int
) -> Ending:
    from nas_cli.live import Progress
    from studies.analysis.queries import died_in
    from studies.executors.choose import executor
    from studies.search.loop import Ending, Search
    from studies.search.supernet import derived

    budget = study.stop_at
    died = died_in(store, study)
    own = executor(study.spec, parts, workers, apart=died is not None)
    if died is not None and workers == 1 and own.apart and parts.evaluator.in_process:
        print(
            f"trial {died} may have taken its process down; candidates now get a process of their own", file=sys.stderr
        )
    progress = Progress(study.name, parts.objectives, budget.trials, parts.evaluator.fidelity, parts.budget)
    loop = Search(
        store,
        study,
        derived(store, study, parts),
        listener=progress,
        stopping=stopper.stopping,
        environment=environment,
        executor=own,
    )
    progress.known(loop.evaluated, loop.best)
    with progress:
        ending = loop.run(budget)
    return Ending.DERIVED if parts.supernet is not None and ending == Ending.EXHAUSTED else ending
