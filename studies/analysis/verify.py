"""Does a stored study hold what it says? Replays every ask, and recomputes what can be recomputed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from nas_core.errors import NasError
from nas_core.evaluation import Context
from nas_core.records import TRIAL, Run
from nas_core.strategy import Exhausted, Pending, State
from studies.records import Study
from studies.search.supernet import derived
from studies.search.trial import paid
from studies.search.verdicts import Verdicts
from studies.setup.assemble import StudyObjects
from studies.store import supernets, tables
from studies.store.store import Store


def verify(store: Store, study: Study, parts: StudyObjects) -> Iterator[str]:
    """Yield one line per finding; none: the study is what its configuration and outcomes make it.

    Every ask is repeated with the outcomes it had seen (`asked_after`) and the trials pending then, and must
    give the stored proposal. Verdicts are recomputed from stored metrics, tables are looked up again, and
    files are compared with their SHA-256.
    """
    yield from _supernet(store, study)
    runs = list(store.trials(study, metrics=True))
    if parts.supernet is not None and not runs:
        return
    parts = derived(store, study, parts).cached_in(store)
    verdicts = Verdicts(parts)
    yield from _numbers(runs)
    yield from _proposals(runs, parts)
    by_number = {run.number: run for run in runs}
    tabular = study.spec.evaluator.facts.looks_up
    for run in runs:
        for problem in _contents(run, parts, verdicts, by_number, tabular):
            yield f"trial {run.number}: {problem}"
    yield from _columns(store, study)
    yield from _files(store, study)


def _supernet(store: Store, study: Study) -> Iterator[str]:
    """The epochs of a supernet's training are whole, and its weights are what was written."""
    run = supernets.find(store, study)
    if run is None:
        return
    numbers = [epoch.number for epoch in supernets.epochs(store, study)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the epochs of its supernet are not 1 to {len(numbers)}"
    if run.weights is not None:
        yield from _file(run.weights, run.sha256)


def _numbers(runs: list[Run]) -> Iterator[str]:
    if [run.number for run in runs] != list(range(len(runs))):
        yield f"the trial numbers are not 0 to {len(runs) - 1}"
    told = sorted(run.told for run in runs if run.told is not None)
    if told != list(range(len(told))):
        yield "the order in which outcomes were told has gaps or repeats"


def _proposals(runs: list[Run], parts: StudyObjects) -> Iterator[str]:
    strategy = parts.make_strategy()
    told = sorted((run for run in runs if run.told is not None), key=lambda run: run.told or 0)
    seen = 0
    untold: dict[int, Run] = {}  # asked before, and not told when this one was asked
    for run in runs:
        asked_after = run.asked_after or 0
        while seen < min(asked_after, len(told)):
            strategy.tell(told[seen].outcome())
            untold.pop(told[seen].number, None)
            seen += 1
        pending = [Pending(number, other.proposal) for number, other in untold.items()]
        untold[run.number] = run
        try:
            proposal = strategy.ask(run.number, pending)
        except (Exhausted, NasError) as error:
            yield f"trial {run.number}: asking again fails: {error or type(error).__name__}"
            return
        if proposal is None or proposal != run.proposal:
            again = "nothing" if proposal is None else f"{dict(proposal.arch.values)} {dict(proposal.note)}"
            yield f"trial {run.number}: stored {dict(run.arch.values)} {dict(run.note)}, but asking again gives {again}"
            return  # what follows was told other outcomes than the strategy now knows


def _contents(
    run: Run, parts: StudyObjects, verdicts: Verdicts, by_number: dict[int, Run], tabular: bool
) -> Iterator[str]:
    reason = parts.space.illegal(run.arch)
    if reason and run.state != State.REJECTED:
        yield f"its architecture is illegal: {reason}"
        return
    if run.identity != parts.identity(run.arch):
        yield f"its identity is stored as '{run.identity}', but is '{parts.identity(run.arch)}'"
    if run.state == State.FAILED and run.verdict.values is not None:
        yield "it is stored as failed, but has values"
    if run.state == State.REJECTED and not paid(run.verdict):
        source = by_number.get(-1 if run.reuses is None else run.reuses)
        if source is not None and paid(source.verdict):
            if (source.identity, source.verdict.reason) != (run.identity, run.verdict.reason):
                yield f"it is rejected as trial {run.reuses}, which is another candidate or was for another reason"
            return
        known, _ = verdicts.before(run.arch)
        if known is None or (known.state, known.violations) != (run.state, run.verdict.violations):
            yield "it is stored as rejected, but its architecture and costs say something else"
    if run.state in (State.COMPLETE, State.REUSED, State.PRUNED):
        verdict = verdicts.after(run.metrics, run.verdict.seconds)
        if (verdict.values, verdict.violations) != (run.verdict.values, run.verdict.violations):
            yield f"its metrics give {verdict.values}, {verdict.violations}; stored are " + (
                f"{run.verdict.values}, {run.verdict.violations}"
            )
    if run.state == State.REUSED:
        source = by_number.get(-1 if run.reuses is None else run.reuses)
        if source is None or source.identity != run.identity or source.state != State.COMPLETE:
            yield f"it reuses trial {run.reuses}, which is not a complete trial of the same identity"
    if run.state == State.COMPLETE and tabular:
        yield from _table(run, parts)


def _table(run: Run, parts: StudyObjects) -> Iterator[str]:
    """Look a tabular result up again."""
    budget = parts.budget if run.proposal.budget is None else run.proposal.budget
    for report in parts.evaluator.evaluate(run.proposal, budget, Context(seed=0, workdir=Path())):
        for name, value in report.metrics.items():
            if run.metrics.get(name) != value:
                yield f"'{name}' is stored as {run.metrics.get(name)}, the table has {value}"


def _columns(store: Store, study: Study) -> Iterator[str]:
    """The columns that sort and filter must say what the values and violations say."""
    r = tables.runs.c
    rows = store.read(
        sa.select(r.number, r.objectives, r.violations, r.objective, r.feasible).where(
            r.study == study.id, tables.is_kind(r, TRIAL)
        )
    )
    for number, values, violations, objective, feasible in rows:
        first = json.loads(values)[0] if values else None
        fits = None if values is None else all(one <= 0 for one in json.loads(violations or "[]"))
        if (objective, feasible) != (first, fits):
            yield f"trial {number}: its columns say {objective}, feasible {feasible}; its values {first}, {fits}"


def _files(store: Store, study: Study) -> Iterator[str]:
    for artifacts in store.study_artifacts(study).values():
        for artifact in artifacts:
            yield from _file(store.files / artifact.path, artifact.sha256)


def _file(path: Path, sha256: str | None) -> Iterator[str]:
    if not path.is_file():
        yield f"the file '{path}' is gone"
    elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        yield f"the file '{path}' is not what was written (SHA-256 differs)"
