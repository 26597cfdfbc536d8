"""The best trials of a study and its front, found by indexes: a study may have a million trials.

All of them are among the feasible trials of the largest budget. Their values are oriented: higher is better.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from nas_core.records import TRIAL
from nas_core.strategy import State
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is known of a candidate in full: one whose function had been evaluated before may still cost less.
MEASURED = (State.COMPLETE, State.REUSED)
SAMPLE = 2_000  # trials from which those are chosen that rule others out
RULING = 24  # of them
ENOUGH = 0.002  # of the sample, what one more of them should rule out
NEAR = 1e-12  # relative; more than what SQLite loses of a number that it reads from text


def best_number(store: Store, study: Study) -> int | None:
    """The trial with the best first objective, the earliest of equals; None: nothing is feasible."""
    found = [one for state in MEASURED if (one := _best_of(store, study, state)) is not None]
    return min(found)[-1] if found else None


def _best_of(store: Store, study: Study, state: State) -> tuple[float, float, int] | None:
    """The best of the trials in a state: what it is sorted by, and its number."""
    r = t.runs.c
    budget = _largest(store, study, (state,))
    among = sa.and_(_feasible(study, (state,)), _spent(budget))
    top = store.read(sa.select(sa.func.max(r.objective)).where(among))[0][0]
    if top is None:
        return None
    number = store.read(sa.select(sa.func.min(r.number)).where(among, r.objective == top))[0][0]
    return -float("inf") if budget is None else -budget, -top, number


def top_numbers(store: Store, study: Study, count: int) -> list[int]:
    """The best `count` trials by the first objective, the earliest of equals and of one identity. Something is
    feasible."""
    r = t.runs.c
    among = sa.and_(_feasible(study, MEASURED), _spent(_largest(store, study, MEASURED)))
    order = sa.select(r.number, r.identity).where(among).order_by(r.objective.desc(), r.number)
    found: dict[str, int] = {}
    for part in store.stream(order):
        for number, identity in part:
            found.setdefault(identity, number)
            if len(found) == count:
                return list(found.values())
    return list(found.values())


def leaders(store: Store, study: Study, count: int) -> list[int]:
    """By each of `count` objectives after the first the trial of the front that is best at it; of several the best by
    the first objective, then the earliest. Something is feasible."""
    budget = _largest(store, study, MEASURED)
    return [_leader(store, study, budget, place) for place in range(1, count + 1)]


def _leader(store: Store, study: Study, budget: float | None, place: int) -> int:
    r, value = t.runs.c, t.oriented(place, store.dialect)
    found: list[tuple[int, list[float]]] = []
    for state in MEASURED:
        among = sa.and_(_feasible(study, (state,)), _spent(budget))
        top = store.read(sa.select(value).where(among, _several(store.dialect)).order_by(value.desc()).limit(1))
        if top:
            least = top[0][0] - _margin(top[0][0])
            near = _several(store.dialect, least) if place == 1 else sa.and_(_several(store.dialect), value >= least)
            rows = sa.select(sa.func.min(r.number), r.objectives).where(among, near).group_by(r.objectives)
            found += [(number, json.loads(text)) for number, text in store.read(rows)]
    highest = max(values[place] for _, values in found)
    # Whatever dominates one of these is one of them.
    return _front([(number, values) for number, values in found if values[place] == highest])[0]


def front_numbers(store: Store, study: Study, *, sample: int = SAMPLE) -> list[int]:
    """The trials that no other dominates, the earliest of equals, by falling first objective; of a study with several
    objectives.

    Trials that are clearly dominated by one of a sample are left out by the database. `sample`: how many those are.
    """
    r = t.runs.c
    among = sa.and_(_feasible(study, MEASURED), _spent(_largest(store, study, MEASURED)))
    among = sa.and_(among, _several(store.dialect))
    last = store.read(sa.select(sa.func.max(r.number)).where(r.study == study.id, t.is_kind(r, TRIAL)))[0][0] or 0
    few = sa.select(r.number, r.objectives).where(among, r.number % (last // sample + 1) == 0)
    drawn = [json.loads(text) for _, text in store.read(few)]
    left = [sa.not_(_below(point, store.dialect)) for point in _ruling(drawn)]
    front: list[tuple[int, list[float]]] = []
    for part in store.stream(sa.select(r.number, r.objectives).where(among, *left)):
        front = _kept([*front, *_read(part)])
    return _front(front)


def _largest(store: Store, study: Study, states: Sequence[State]) -> float | None:
    """The largest budget; None: that of proposals that name none, or there are no trials."""
    r, among = t.runs.c, _feasible(study, states)
    if store.read(sa.select(r.number).where(among, r.budget.is_(None)).limit(1)):
        return None
    largest: float | None = store.read(sa.select(sa.func.max(r.budget)).where(among))[0][0]
    return largest


def _feasible(study: Study, states: Sequence[State]) -> sa.ColumnElement[bool]:
    r = t.runs.c
    return sa.and_(
        r.study == study.id, t.is_kind(r, TRIAL), r.state.in_(states), r.feasible.is_(True), r.ended.isnot(None)
    )


def _spent(budget: float | None) -> sa.ColumnElement[bool]:
    return t.runs.c.budget.is_(None) if budget is None else t.runs.c.budget == budget


def _several(dialect: str, least: float = -sys.float_info.max) -> sa.ColumnElement[bool]:
    """Of a trial: that it has several objectives, the second of at least so much. A range of the index of those, which
    the database then prefers."""
    second = t.oriented(1, dialect)
    return sa.and_(second.isnot(None), second >= least)


def _below(point: Sequence[float], dialect: str) -> sa.ColumnElement[bool]:
    """Of a trial: whether a point dominates it, by more than what SQLite loses of numbers that it reads from text."""
    first, *others = point
    clearly = [t.oriented(place, dialect) < value - _margin(value) for place, value in enumerate(others, start=1)]
    return sa.and_(t.runs.c.objective <= first, *clearly)


def _margin(value: float) -> float:
    return NEAR * abs(value) + 1e-290


def _ruling(points: list[list[float]]) -> Iterator[Sequence[float]]:
    """Those of some points that dominate the most of them, each beside what the ones before it do."""
    import numpy

    if not points:
        return
    values = numpy.array(points)
    best = [point for _, point in _kept(list(enumerate(points)))]
    below = numpy.array([(values <= point).all(1) & (values[:, 1:] < numpy.array(point)[1:]).all(1) for point in best])
    for _ in range(RULING):
        gain = below.sum(1)
        chosen = int(gain.argmax())
        if gain[chosen] < ENOUGH * len(values):
            return
        yield best[chosen]
        below = below & ~below[chosen]


def _read(rows: Iterable[Any]) -> list[tuple[int, list[float]]]:
    """Numbers and values of rows (number, JSON)."""
    numbers, texts = zip(*rows, strict=True)
    return list(zip(numbers, json.loads(f"[{','.join(texts)}]"), strict=True))


def _front(found: Sequence[tuple[int, list[float]]]) -> list[int]:
    """The numbers of those that no other dominates, by falling first value."""
    return [number for number, _ in sorted(_kept(found), key=lambda one: (-one[1][0], one[0]))]


def _kept(found: Sequence[tuple[int, list[float]]]) -> list[tuple[int, list[float]]]:
    """Those that no other dominates, of equal ones that with the smallest number."""
    import numpy

    from nas_core.pareto import undominated

    values: NDArray[numpy.float64] = numpy.array([one for _, one in found]) + 0.0  # -0.0 is 0.0
    first: dict[tuple[float, ...], tuple[int, list[float]]] = {}
    for place in numpy.flatnonzero(undominated(values)).tolist():
        key = tuple(values[place].tolist())
        if key not in first or found[place][0] < first[key][0]:
            first[key] = found[place]
    return list(first.values())
