"""What figures read of a study's trials: columns that the database selects, not whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import sqlalchemy as sa

from nas_core.evaluation import Objective
from nas_core.records import TRIAL
from nas_core.seeds import generator
from nas_core.strategy import State
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWN = 2_000  # points of a panel: more of them neither an eye nor a browser tells apart
MEASURED = (State.COMPLETE, State.REUSED)


@dataclass(frozen=True, slots=True)
class Trials:
    """Trials in the order of their numbers. `values` [trials, objectives] as the metrics have them, NaN where there are
    none; `oriented`: higher is better; `budgets` infinite where the full one is meant."""

    numbers: NDArray[numpy.int64]
    states: NDArray[numpy.str_]
    oriented: NDArray[numpy.float64]
    values: NDArray[numpy.float64]
    feasible: NDArray[numpy.bool_]
    budgets: NDArray[numpy.float64]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def measured(self) -> NDArray[numpy.bool_]:
        """Which have values of all objectives, and are judged."""
        return numpy.isin(self.states, MEASURED) & numpy.isfinite(self.oriented).all(1)

    @property
    def counts(self) -> NDArray[numpy.bool_]:
        """Which may be the best: measured, feasible, of the largest budget among such."""
        found = self.measured & self.feasible
        return found & (self.budgets == self.budgets[found].max()) if found.any() else found


def read(store: Store, study: Study, objectives: Sequence[Objective]) -> Trials:
    """All trials of a study, by one query for seven columns."""
    r = t.runs.c
    columns = r.number, r.state, r.objectives, r.feasible, r.budget
    rows = store.read(sa.select(*columns).where(r.study == study.id, t.is_kind(r, TRIAL)).order_by(r.number))
    width = len(objectives)
    blank = f"[{','.join(['null'] * width)}]"
    # One text for all: a call for each would take longer than the query.
    stored = json.loads(f"[{','.join(row[2] or blank for row in rows)}]")
    oriented = numpy.array(stored, dtype=float).reshape(len(rows), width)
    signs = numpy.array([objective.orient(1.0) for objective in objectives])
    return Trials(
        numpy.array([row[0] for row in rows], dtype=numpy.int64),
        numpy.array([row[1] for row in rows], dtype="U16"),
        oriented,
        oriented * signs,
        numpy.array([bool(row[3]) for row in rows], dtype=bool),
        numpy.array([math.inf if row[4] is None else row[4] for row in rows], dtype=float),
    )


def incumbents(trials: Trials) -> NDArray[numpy.int64]:
    """The positions of the trials that were better by the first objective than all before them, of those that count."""
    values = numpy.where(trials.counts, trials.oriented[:, 0], -math.inf)
    best = numpy.maximum.accumulate(values) if len(values) else values
    before = numpy.concatenate([[-math.inf], best[:-1]])
    return numpy.flatnonzero(values > before)


def thinned(x: NDArray[numpy.float64], y: NDArray[numpy.float64], count: int = DRAWN) -> NDArray[numpy.int64]:
    """The positions of at most `count` points that look like all of them: of those that fall into one cell of a grid
    over the plane one that is drawn with a fixed seed. All where there are not more."""
    if len(x) <= count:
        return numpy.arange(len(x))
    order = generator(0, "thinned", len(x)).permutation(len(x))
    cells, kept = int(math.sqrt(count)) * 4, order
    while len(kept) > count:
        kept = order[numpy.unique((_cell(x, cells) * cells + _cell(y, cells))[order], return_index=True)[1]]
        cells = cells * 3 // 4
    return numpy.sort(kept)


def _cell(values: NDArray[numpy.float64], cells: int) -> NDArray[numpy.int64]:
    """The place of each value among so many equal intervals; outliers share the outer ones, so that they do not take
    the room of all others."""
    low, high = numpy.quantile(values, [0.01, 0.99])
    inside = numpy.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)
    return numpy.minimum(inside * cells, cells - 1).astype(numpy.int64)


def dot(count: int) -> float:
    """The size of so many points."""
    return 4.0 if count <= 500 else 2.5


def text(study: Study, trials: Trials, positions: Iterable[int], objectives: Sequence[Objective]) -> Iterator[str]:
    """For each of some trials what a pointer over it shows: `s:17  val_accuracy 0.93`."""
    names = [objective.metric for objective in objectives]
    for place in positions:
        values = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trials.values[place], strict=True))
        yield f"{study.name}:{trials.numbers[place]}  {values}"


def drawn(count: int, total: int, what: str = "trials") -> str:
    """`all 20 trials`, or `1,950 of 100,000 trials`, for a caption; `what` is a plural in -s."""
    if total < 2:
        return f"the only {what.removesuffix('s')}" if total else f"no {what}"
    return f"all {total:,} {what}" if count >= total else f"{count:,} of {total:,} {what}"
