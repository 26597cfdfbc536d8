"""The Pareto front of the networks that trainings and compressions of a study have left: how good, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from nas_core.errors import NotFoundError
from nas_core.evaluation import Objective
from nas_core.pareto import dominates
from nas_core.records import BASELINE, TRIAL, Run
from nas_core.strategy import State
from studies.address import WORDS
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

COST = Objective("macs", "min")


@dataclass(frozen=True, slots=True)
class Network:
    """A run that left a network of a trial, and its values on the axes, oriented such that higher is better."""

    trial: Run
    run: Run
    values: tuple[float, ...]


def axes(study: Study) -> tuple[Objective, ...]:
    """The objectives of a study, and MACs where none of them is a cost."""
    parted = (text.rpartition(":") for text in study.spec.objectives)
    found = tuple(Objective(name, "min" if goal == "min" else "max") for name, _, goal in parted)
    return found if len(found) > 1 else (*found, COST)


def front(store: Store, study: Study) -> list[Network]:
    """What nothing dominates among the networks that were trained on the study's own data, the best by the first
    objective first. Raises NotFoundError where there is none."""
    found = networks(store, study, axes(study))
    if not found:
        names = ", ".join(one.metric for one in axes(study))
        raise NotFoundError(
            f"study '{study.name}' has no trained network with {names} on its own data; run 'nas train {study.name}' "
            "first"
        )
    kept: list[Network] = []
    for one in sorted(found, key=lambda network: network.values, reverse=True):
        if not any(other.values == one.values or dominates(other.values, one.values) for other in kept):
            kept.append(one)
    return kept


def any_trained(store: Store, study: Study) -> bool:
    """Whether there is a training or a compression, in whatever state."""
    r = t.runs.c
    kinds = sa.or_(*(t.is_kind(r, kind) for kind in WORDS))
    return bool(store.read(sa.select(r.id).where(r.study == study.id, kinds).limit(1)))


def networks(store: Store, study: Study, wanted: tuple[Objective, ...]) -> list[Network]:
    """All of them that have these metrics."""
    return list(_networks(store, study, wanted))


def _networks(store: Store, study: Study, wanted: tuple[Objective, ...]) -> Iterator[Network]:
    r = t.runs.c
    kinds = sa.or_(*(t.is_kind(r, kind) for kind in WORDS))
    has_run = sa.select(r.parent).where(r.study == study.id, kinds, r.parent.is_not(None))
    numbers = sa.select(r.number, r.kind).where(r.study == study.id, r.id.in_(has_run)).order_by(r.id)
    for number, kind in store.read(numbers):
        if kind not in (TRIAL, BASELINE):
            continue  # a compression of a compression is below the same trial
        trial = store.trial(study, number) if kind == TRIAL else _baseline(store, study, number)
        for run in (run for kind in WORDS for run in store.below(trial, kind)):
            own = (run.recipe or {}).get("split_hash") == study.spec.split_hash
            values = [run.metrics.get(one.metric) for one in wanted]
            if run.state == State.COMPLETE and own and None not in values:
                oriented = (one.orient(value) for one, value in zip(wanted, values, strict=True) if value is not None)
                yield Network(trial, run, tuple(oriented))


def _baseline(store: Store, study: Study, number: int) -> Run:
    return next(run for run in store.runs(study, BASELINE) if run.number == number)
