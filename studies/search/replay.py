"""What a resumed search begins with: all trials as the store has them, and the strategy's newest snapshot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import sqlalchemy as sa

from nas_core.evaluation import Objective
from nas_core.records import TRIAL, Run, Verdict
from nas_core.strategy import Snapshots, State, Strategy
from studies.records import Study
from studies.search.trial import EVALUATED, Curve, Trial
from studies.search.workdirs import Workdirs
from studies.store import tables
from studies.store.store import Store


@dataclass(frozen=True)
class Recorded:
    """The trials of a study: `told` in the order of the tells, the others as `pending`, `next` the next number, `kept`
    those whose training may go on; `paid` the steps that those came to which their evaluation rejected; `curves` of
    the first objective by trial, oriented, where they are wanted."""

    told: list[Run]
    pending: dict[int, Trial]
    next: int
    kept: set[int]
    paid: Mapping[int, float]
    curves: Mapping[int, Curve]


def recorded(
    store: Store,
    study: Study,
    curves_of: Objective | None,
    workdirs: Workdirs,
) -> Recorded:
    """Read a study's trials; `curves_of`: the objective whose curves are wanted."""
    curves: Mapping[int, Curve] = {}
    if curves_of is not None:
        curves = {
            number: [(step, curves_of.orient(value)) for step, value in curve if math.isfinite(value)]
            for number, curve in store.curves(study, curves_of.metric).items()
        }
    found = Recorded([], {}, 0, set(), _paid(store, study), curves)
    end = 0
    for run in store.trials(study, metrics=True):
        end = run.number + 1
        if run.told is not None:
            found.told.append(run)
        else:
            found.pending[run.number] = _pending(store, run, curves.get(run.number, []), found.paid.get(run.number))
        if workdirs.continuable(run.proposal, run.state):
            found.kept.add(run.number)
        if run.state == State.COMPLETE and run.proposal.continues is not None:
            found.kept.discard(workdirs.holder(run.proposal.continues))
    found.told.sort(key=lambda run: run.told or 0)
    return replace(found, next=end)


def _paid(store: Store, study: Study) -> dict[int, float]:
    r, m = tables.runs.c, tables.metrics.c
    rejected = sa.and_(r.study == study.id, tables.is_kind(r, TRIAL), r.state == State.REJECTED, r.seconds.isnot(None))
    step = sa.func.coalesce(sa.func.max(m.step), 0.0)
    rows = store.read(
        sa.select(r.number, step).outerjoin(tables.metrics, m.run == r.id).where(rejected).group_by(r.number)
    )
    return {number: float(reached) for number, reached in rows}


def _pending(store: Store, run: Run, curve: Curve, paid: float | None) -> Trial:
    """A run that was not told. An unfinished one waits to be started again, whatever it was doing."""
    verdict = run.verdict if run.finished else Verdict(State.WAITING)
    trial = Trial(
        run.number, run.id, run.proposal, run.identity, verdict, run.reuses, run.metrics, run.asked_after or 0
    )
    if run.state in EVALUATED:
        trial.curve = curve
    elif paid is not None:
        trial.furthest = paid
    elif run.tries:
        trial.tries = run.tries
        trial.furthest = max((report.step for report in store.curve(run)), default=-math.inf)
    return trial


def restore(strategy: Strategy, store: Store, study: Study, told: int) -> int:
    """Load the newest intact snapshot of at most `told` outcomes into a new strategy; how many it knows by it."""
    if isinstance(strategy, Snapshots):
        for known, state in store.snapshots(study):
            if known <= told:
                strategy.load_state_dict(state)
                return known
    return 0
