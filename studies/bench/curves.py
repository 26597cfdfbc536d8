"""From the children in the database to arrays of incumbents, query by query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import sqlalchemy as sa

from nas_core.errors import NotFoundError
from nas_core.records import TRIAL, Bench
from nas_core.strategy import State
from studies.bench.plan import Plan
from studies.bench.worker import child_name, finished
from studies.store import tables as t
from studies.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True)
class Curves:
    """Incumbents of the seeds that every strategy has finished, `[strategies, seeds, queries]`.

    `validation` is the searched value, oriented so that higher is better; `test` what the incumbent has on the test
    split, None without one. `measured`: what was measured of the children, by label, in the order of the seeds.
    """

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    validation: Floats
    test: Floats | None
    measured: Mapping[str, Sequence[Mapping[str, float]]]


def load(store: Store, bench: Bench, plan: Plan) -> Curves:
    """Raises NotFoundError while there is no seed that every strategy has finished."""
    children = {study.name: study for study in store.studies_of(bench) if finished(study)}
    labels = tuple(plan.contenders)
    names = {seed: [child_name(bench, label, seed) for label in labels] for seed in range(plan.seeds)}
    seeds = tuple(seed for seed in names if all(name in children for name in names[seed]))
    if not seeds:
        raise NotFoundError(
            f"bench '{bench.name}' has no seed yet that every strategy has finished; "
            f"go on: nas bench resume {bench.name}"
        )
    trials = _trials(store, bench, plan)
    blind = plan.landscape.mean, math.nan if plan.landscape.test_mean is None else plan.landscape.test_mean
    found = numpy.empty((2, len(labels), len(seeds), plan.queries))
    for column, seed in enumerate(seeds):
        for row, name in enumerate(names[seed]):
            found[:, row, column] = incumbents(trials.get(children[name].id, ()), plan.queries, blind)
    return Curves(
        labels=labels,
        seeds=seeds,
        validation=found[0],
        test=None if plan.test_metric is None else found[1],
        measured={label: [children[names[seed][row]].measured for seed in seeds] for row, label in enumerate(labels)},
    )


def incumbents(trials: Sequence[tuple[float, float, float]], queries: int, blind: tuple[float, float]) -> Floats:
    """Validation and test of the incumbent after 1, 2, ... queries, [2, queries], of trials in the order in which the
    strategy was told of them: (cost in full evaluations, oriented value or NaN where none counts, test).

    The earliest of equals stays, and the last to the end where a search ended early. Before the first the incumbent
    is worth what a blind draw is, the table's means.
    """
    curve = numpy.empty((2, queries))
    best = blind
    spent, filled, known = 0.0, 0, False
    for cost, value, test in trials:
        spent += cost
        query = math.ceil(spent - 1e-9)  # fractions of a query may not add up exactly
        if query > queries:
            break
        if math.isnan(value) or (known and value <= best[0]):
            continue
        # What comes in the course of a query is there at its end.
        curve[:, filled : max(filled, query - 1)] = numpy.array(best)[:, None]
        filled, known, best = max(filled, query - 1), True, (value, test)
    curve[:, filled:] = numpy.array(best)[:, None]
    return curve


def _trials(store: Store, bench: Bench, plan: Plan) -> dict[int, list[tuple[float, float, float]]]:
    """Per child study what `incumbents` reads of its trials."""
    r, s, m = t.runs.c, t.studies.c, t.metrics.c
    joined = sa.join(t.runs, t.studies, r.study == s.id).outerjoin(
        t.metrics, sa.and_(m.run == r.id, m.name == (plan.test_metric or ""))
    )
    statement = (
        sa.select(r.study, r.state, r.budget, r.objective, r.feasible, m.value)
        .select_from(joined)
        .where(s.bench == bench.id, t.is_kind(r, TRIAL), r.told.isnot(None))
        .where(r.state.in_([State.COMPLETE, State.FAILED]))
        .order_by(r.study, r.told)
    )
    found: dict[int, list[tuple[float, float, float]]] = {}
    for study, state, budget, objective, feasible, test in store.read(statement):
        cost = plan.cost(budget)
        counts = state == State.COMPLETE and cost == 1.0 and feasible
        trial = cost, objective if counts else math.nan, math.nan if test is None else test
        found.setdefault(study, []).append(trial)
    return found
