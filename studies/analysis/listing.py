"""The trials of a study as they are listed: which of them, in which order. The database sorts; a page of them is in
memory at a time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa

from nas_core.errors import unknown
from nas_core.evaluation import Objective
from nas_core.records import TRIAL, Run
from nas_core.strategy import FINISHED, State
from studies.analysis.queries import unfinished
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store


@dataclass(frozen=True)
class Listing:
    """Trials with their metrics; whether any of them has a reason, or a budget of its own. They are read as they are
    asked for."""

    runs: Iterator[Run]
    reasons: bool
    budgets: bool


def listed(
    store: Store,
    study: Study,
    objectives: Sequence[Objective],
    *,
    sort: str = "number",
    limit: int | None = None,
    state: State | None = None,
) -> Listing:
    """The first `limit` trials in a state by a key: number, seconds or a metric (an objective: best first); `-KEY`
    turns the order round. Trials without it come last, equals by their number.

    Raises UsageError for a key that is none of number, seconds and the metrics of these trials.
    """
    r = t.runs.c
    among = _among(study, state)
    if sort == "number" and state is None:
        runs = islice(store.trials(study, metrics=True), limit)
        if limit is None:
            return Listing(runs, *_anywhere(store, study))
        first = sa.select(r.reason, r.budget).where(among).order_by(r.number).limit(limit).subquery()
        found = store.read(sa.select(sa.func.max(_reason(first.c)), sa.func.max(_budget(first.c))))[0]
        return Listing(runs, bool(found[0]), bool(found[1]))
    order = _order(store, among, objectives, sort)
    numbers, reasons, budgets = array("q"), False, False
    for part in store.stream(sa.select(r.number, _reason(r), _budget(r)).where(among).order_by(*order).limit(limit)):
        numbers.extend(row[0] for row in part)
        reasons, budgets = reasons or any(row[1] for row in part), budgets or any(row[2] for row in part)
    return Listing(store.some_trials(study, numbers), reasons, budgets)


def count(store: Store, study: Study, state: State | None = None) -> int:
    """How many trials there are, or are in a state."""
    return int(store.read(sa.select(sa.func.count()).where(_among(study, state)))[0][0])


def any_transfers(store: Store, study: Study) -> bool:
    """Whether a trial begins with the weights of another one."""
    r = t.runs.c
    return bool(store.read(sa.select(r.id).where(r.study == study.id, r.transfer.isnot(None)).limit(1)))


def _among(study: Study, state: State | None) -> sa.ColumnElement[bool]:
    r = t.runs.c
    trials = sa.and_(r.study == study.id, t.is_kind(r, TRIAL))
    if state is None:
        return trials
    ended = [r.ended.isnot(None)] if state in FINISHED else []  # what the index says
    return sa.and_(trials, r.state == state, *ended)


def _reason(columns: Any) -> sa.ColumnElement[int]:
    return sa.case((sa.func.coalesce(columns.reason, "") != "", 1), else_=0)


def _budget(columns: Any) -> sa.ColumnElement[int]:
    return sa.case((columns.budget.isnot(None), 1), else_=0)


def _anywhere(store: Store, study: Study) -> tuple[bool, bool]:
    """Whether any trial has a reason, or a budget: by the index of those that have ended, and by the few others. What
    is complete has no reason."""
    r = t.runs.c
    ended = sa.and_(_among(study, None), r.ended.isnot(None))
    told = sa.and_(ended, r.state.in_([one for one in FINISHED if one != State.COMPLETE]), _reason(r) == 1)
    reasons = store.read(sa.select(r.id).where(told).limit(1))
    budgets = store.read(sa.select(r.id).where(ended, r.budget.isnot(None)).limit(1))
    return bool(reasons), bool(budgets) or any(row.budget is not None for row in unfinished(store, study))


def _order(store: Store, among: Any, objectives: Sequence[Objective], sort: str) -> tuple[Any, ...]:
    """What the trials are sorted by. Raises UsageError for a key that none of them has."""
    r, m = t.runs.c, t.metrics.c
    key, backwards = sort.removeprefix("-"), sort.startswith("-")
    goals = {objective.metric: objective.goal for objective in objectives}
    falling = (goals.get(key) == "max") != backwards
    value: Any
    if key == "number":
        value = r.number + 0  # by the index of states, not by that of numbers, which has all trials
    elif key == "seconds":
        value = sa.func.nullif(r.seconds, math.nan)
    else:
        known = sa.select(m.name).join(t.runs, r.id == m.run).where(among)
        if key not in goals and not store.read(known.where(m.name == key).limit(1)):
            names = sorted(row[0] for row in store.read(known.distinct()))
            raise unknown("sort key", key, dict.fromkeys(("number", "seconds", *goals, *names)))
        number = sa.case(
            (m.number == "finite", m.value), (m.number == "+inf", math.inf), (m.number == "-inf", -math.inf)
        )
        newest = sa.select(number).where(m.run == r.id, m.name == key).order_by(m.step.desc()).limit(1)
        value = newest.scalar_subquery()
    return value.is_(None), value.desc() if falling else value, r.number
