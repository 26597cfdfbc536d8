"""A page of a study's trials: the database filters, sorts and counts, and a page of them is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nas_core.errors import unknown
from nas_core.evaluation import Objective
from nas_core.records import TRIAL, Run
from nas_core.strategy import FINISHED, State
from studies.analysis.queries import state_counts
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

SIZE = 50  # trials of a page


@dataclass(frozen=True)
class Asked:
    """Which trials: those in a `state`, those in whose architecture or reason a text occurs; `sort` is number, seconds
    or an objective (best first), `-KEY` turned round; `page` from 1 on."""

    state: str = ""
    text: str = ""
    sort: str = "-number"
    page: int = 1


@dataclass(frozen=True)
class Found:
    runs: Sequence[Run]
    total: int
    page: int
    pages: int


def found(store: Store, study: Study, objectives: Sequence[Objective], asked: Asked) -> Found:
    """The page, or the last one where there are not so many. Raises UsageError for an unknown state or key."""
    r = t.runs.c
    order = _order(store, objectives, asked.sort)
    among = _among(study, asked)
    total = _total(store, study, asked, among)
    pages = max(1, math.ceil(total / SIZE))
    page = min(max(asked.page, 1), pages)
    statement = sa.select(r.number).select_from(_source(asked)).where(among).order_by(*order)
    numbers = [row.number for row in store.read(statement.limit(SIZE).offset((page - 1) * SIZE))]
    return Found(list(store.some_trials(study, numbers)), total, page, pages)


def _source(asked: Asked) -> Any:
    return t.runs.join(t.architectures) if asked.text else t.runs


def _among(study: Study, asked: Asked) -> sa.ColumnElement[bool]:
    r = t.runs.c
    parts = [r.study == study.id, t.is_kind(r, TRIAL)]
    if asked.state:
        if asked.state not in set(State):
            raise unknown("state", asked.state, [str(known) for known in State])
        parts += [r.state == asked.state, *([r.ended.isnot(None)] if State(asked.state) in FINISHED else [])]
    if asked.text:
        said = sa.or_(
            t.architectures.c.json.icontains(asked.text, autoescape=True),
            sa.func.coalesce(r.reason, "").icontains(asked.text, autoescape=True),
        )
        parts.append(said)
    return sa.and_(*parts)


def _total(store: Store, study: Study, asked: Asked, among: sa.ColumnElement[bool]) -> int:
    if asked.text:
        return int(store.read(sa.select(sa.func.count()).select_from(_source(asked)).where(among))[0][0])
    counts = state_counts(store, study)  # by an index
    return counts.get(asked.state, 0) if asked.state else sum(counts.values())


def _order(store: Store, objectives: Sequence[Objective], sort: str) -> tuple[Any, ...]:
    r, key, backwards = t.runs.c, sort.removeprefix("-"), sort.startswith("-")
    places = {objective.metric: place for place, objective in enumerate(objectives)}
    if key == "number":
        return (r.number.desc() if backwards else r.number,)
    if key == "seconds":
        value: Any = r.seconds
        falling = not backwards
    elif key in places:
        value = t.oriented(places[key], store.dialect)
        falling = not backwards
    else:
        raise unknown("sort key", key, ["number", "seconds", *places])
    return value.is_(None), value.desc() if falling else value, r.number
