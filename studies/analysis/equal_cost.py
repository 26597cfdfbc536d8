"""A search beside random searches of the same problem in the same database, when all have cost as much."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nas_core.records import TRIAL
from nas_core.strategy import State
from studies.analysis.leading import MEASURED
from studies.analysis.queries import random_searches
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

EVALUATIONS, SECONDS = "evaluations", "seconds of evaluation"
_EVALUATED = (State.COMPLETE, State.PRUNED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Beside:
    """What a search and random ones had come to, by the first objective, oriented: higher is better, at `cost` in
    a `unit`: `EVALUATIONS`, or `SECONDS` where evaluations differ in length. `found`: of every random search that had
    found something feasible by then."""

    unit: str
    cost: float
    value: float
    names: Sequence[str]
    found: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.found)

    @property
    def deviation(self) -> float:
        """Of the random searches; NaN for one."""
        return statistics.stdev(self.found) if len(self.found) > 1 else math.nan


@dataclass(frozen=True, slots=True)
class _Trial:
    cost: float  # evaluations
    seconds: float
    value: float  # oriented; -inf where it does not count
    budget: float


def beside_random(store: Store, study: Study) -> Beside | None:
    """None where there is no random search of the same problem, or nothing that could be compared."""
    others = {other.name: _trials(store, other) for other in random_searches(store, study) if other.id != study.id}
    others = {name: trials for name, trials in others.items() if any(math.isfinite(one.value) for one in trials)}
    own = _trials(store, study) if others else []
    if not own:
        return None
    every = [own, *others.values()]
    alike = len({one.budget for trials in every for one in trials}) == 1
    unit = EVALUATIONS if alike else SECONDS
    cost = min(sum(_cost(one, unit) for one in trials) for trials in every)
    value = _best(own, unit, cost)
    found = {name: _best(trials, unit, cost) for name, trials in others.items()}
    found = {name: best for name, best in found.items() if math.isfinite(best)}
    return Beside(unit, cost, value, [*found], [*found.values()]) if found and math.isfinite(value) else None


def _cost(trial: _Trial, unit: str) -> float:
    return trial.cost if unit == EVALUATIONS else trial.seconds


def _best(trials: Sequence[_Trial], unit: str, cost: float) -> float:
    """The best of what was found before `cost` was spent."""
    spent, best = 0.0, -math.inf
    for one in trials:
        spent += _cost(one, unit)
        if spent > cost * (1 + 1e-9):
            break
        best = max(best, one.value)
    return best


def _trials(store: Store, study: Study) -> list[_Trial]:
    """In the order in which they ended. Of brackets those of the largest budget count, and all of them cost."""
    r = t.runs.c
    columns = r.state, r.objective, r.feasible, r.budget, r.seconds
    ended = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.ended.isnot(None))
    rows = store.read(sa.select(*columns).where(ended).order_by(r.ended, r.number))
    full = max((_budget(row.budget) for row in rows if row.objective is not None), default=math.inf)
    found = []
    for row in rows:
        budget = _budget(row.budget)
        counts = row.state in MEASURED and row.feasible and row.objective is not None and budget == full
        value = row.objective if counts else -math.inf
        cost = 1.0 if row.state in _EVALUATED else 0.0
        short = row.state == State.PRUNED  # ended before its budget
        found.append(_Trial(cost, row.seconds or 0.0, value, math.nan if short else budget))
    return found


def _budget(stored: float | None) -> float:
    return math.inf if stored is None else stored
