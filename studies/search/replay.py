"""What a resumed search begins with: all trials as the store has them, and the strategy's newest snapshot.

Trials are read twice. The loop remembers a little of each, without architectures and metrics; the strategy is told, in
full, what came after its snapshot. A page of them is in memory at a time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from nas_core.evaluation import Objective
from nas_core.records import TRIAL, Run, Verdict
from nas_core.strategy import Outcome, Snapshots, State, Strategy
from studies.records import Study
from studies.search.trial import EVALUATED, Curve, Told, Trial
from studies.search.workdirs import Workdirs
from studies.store import store as stores
from studies.store import tables
from studies.store.store import Store

UNTOLD = -1


class Recorded:
    """The trials of a study. First `told` is read to its end, then `after`; then `pending` are the trials that were
    not told, and `kept` the numbers of those whose training may go on."""

    def __init__(self, store: Store, study: Study, curves_of: Objective | None, workdirs: Workdirs) -> None:
        """`curves_of`: the objective whose curves are wanted."""
        self._store, self._study, self._workdirs = store, study, workdirs
        self._curves: Mapping[int, Curve] = {}
        if curves_of is not None:
            self._curves = {
                number: [(step, curves_of.orient(value)) for step, value in curve if math.isfinite(value)]
                for number, curve in store.curves(study, curves_of.metric).items()
            }
        self._paid = _paid(store, study)
        self._numbers, self._positions = array("q"), array("q")
        self.pending: dict[int, Trial] = {}

    @property
    def count(self) -> int:
        """How many were told."""
        return sum(position != UNTOLD for position in self._positions)

    @property
    def next(self) -> int:
        """The number of the next trial."""
        return self._numbers[-1] + 1 if self._numbers else 0

    def told(self) -> Iterator[tuple[Told, Curve, int, float]]:
        """What the loop remembers of the told ones, in the order of the tells, with their curves where those are
        wanted, how many outcomes had been told when they were asked, and the seconds that they took."""
        for row in _in_order(self._rows()):
            number, state = row.number, State(row.state)
            curve, paid = self._curves.get(number, []) if state in EVALUATED else [], self._paid.get(number)
            told = Told(
                *(number, row.architecture, row.identity, row.budget, row.continues, state),
                row.objective if row.feasible else None,
                row.reuses,
                curve[-1][0] if curve else paid,
                paid is not None,
                row.transfer,
            )
            yield told, curve, row.asked_after or 0, row.seconds or 0.0

    def after(self, known: int) -> Iterator[Outcome]:
        """The told outcomes but for the first `known`, in the order of the tells."""
        later = (
            number
            for number, position in zip(self._numbers, self._positions, strict=True)
            if position == UNTOLD or position >= known
        )
        since = next(later, self.next)
        runs = _in_order(self._untold(self._store.trials(self._study, metrics=True, since=since)), known)
        return (run.outcome() for run in runs)

    def _rows(self) -> Iterator[Any]:
        """What is remembered of every trial, in the order of the numbers; the untold ones are left out."""
        r, last = tables.runs.c, -1
        columns = sa.select(
            *(r.number, r.told, r.architecture, r.identity, r.budget, r.continues, r.state, r.objective, r.feasible),
            *(r.reuses, r.asked_after, r.seconds, r.transfer),
        ).where(r.study == self._study.id, tables.is_kind(r, TRIAL))
        while True:
            page = self._store.read(columns.where(r.number > last).order_by(r.number).limit(stores.PAGE))
            for row in page:
                self._numbers.append(row.number)
                self._positions.append(UNTOLD if row.told is None else row.told)
                if row.told is not None:
                    yield row
            if len(page) < stores.PAGE:
                return
            last = page[-1].number

    def _untold(self, runs: Iterator[Run]) -> Iterator[Run]:
        """The told ones; the others become pending."""
        for run in runs:
            if run.told is not None:
                yield run
                continue
            curve, paid = self._curves.get(run.number, []), self._paid.get(run.number)
            self.pending[run.number] = trial = _pending(self._store, run, curve, paid)
            self._workdirs.learn(trial.told())


def _in_order(found: Iterator[Any], first: int = 0) -> Iterator[Any]:
    """Told trials, in the order of the tells from position `first` on; they come by their numbers, which is nearly the
    same."""
    waiting: dict[int, Any] = {}
    for one in found:
        if one.told >= first:
            waiting[one.told] = one
        while first in waiting:
            yield waiting.pop(first)
            first += 1
    for position in sorted(waiting):  # the study has lost some
        yield waiting[position]


def _paid(store: Store, study: Study) -> dict[int, float]:
    """The steps that those came to which their evaluation rejected."""
    r, m = tables.runs.c, tables.metrics.c
    rejected = sa.and_(r.study == study.id, tables.is_kind(r, TRIAL), r.state == State.REJECTED, r.ended.isnot(None))
    step = sa.func.coalesce(sa.func.max(m.step), 0.0)
    rows = store.read(
        sa.select(r.number, step)
        .outerjoin(tables.metrics, m.run == r.id)
        .where(rejected, r.seconds.isnot(None))
        .group_by(r.number)
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
