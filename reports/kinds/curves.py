"""Learning curves: of a study's trials the first objective's metric, of one run all that it reported but constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import sqlalchemy as sa

from nas_core.errors import NotFoundError
from nas_core.records import TRIAL
from nas_core.seeds import generator
from nas_core.strategy import State
from reports import trials as read
from reports.figure import BLUE, GREEN, GREY, PURPLE, VERMILION, Axis, Figure, Line, Mark, Panel, series
from reports.kind import Kind, Subject, of_runs
from reports.texts import plural
from studies.address import address_of
from studies.store import tables as t

BEST, SAMPLE = 20, 60  # curves of a study: the best trials', and others'
PARTS = ("train_", "val_", "test_")
PANELS = 9


def _make(subject: Subject) -> Figure:
    return _of_study(subject) if subject.run is None else _of_run(subject)


def _of_study(subject: Subject) -> Figure:
    """Raises NotFoundError where no trial has reported more than one step."""
    study, objective = subject.searched, subject.view.objectives[0]
    trials = read.read(subject.store, study, subject.view.objectives)
    r, m = t.runs.c, t.metrics.c
    stepped = (
        sa.select(r.number)
        .join(t.metrics, m.run == r.id)
        .where(r.study == study.id, t.is_kind(r, TRIAL), m.name == objective.metric)
        .group_by(r.number)
        .having(sa.func.count() > 1)
    )
    numbers = numpy.array([row[0] for row in subject.store.read(stepped)], dtype=numpy.int64)
    if not len(numbers):
        raise NotFoundError(
            f"the trials of study '{study.name}' have no learning curves of {objective.metric}: one step each"
        )
    places = numpy.searchsorted(trials.numbers, numpy.sort(numbers))
    values = numpy.where(trials.counts[places], trials.oriented[places, 0], -math.inf)
    order = places[numpy.argsort(-values, kind="stable")]
    rest = order[BEST:]
    if len(rest) > SAMPLE:
        rest = generator(0, "curves", len(rest)).choice(rest, SAMPLE, replace=False)
    chosen = [*order[:BEST].tolist(), *sorted(rest.tolist())]
    statement = (
        sa.select(r.number, m.step, m.value)
        .join(t.metrics, m.run == r.id)
        .where(r.study == study.id, t.is_kind(r, TRIAL), m.name == objective.metric)
        .where(r.number.in_(trials.numbers[chosen].tolist()))
        .order_by(r.number, m.step)
    )
    curves: dict[int, list[tuple[float, float]]] = {}
    for number, step, value in subject.store.read(statement):
        curves.setdefault(number, []).append((step, math.nan if value is None else value))
    best = int(trials.numbers[order[0]])
    groups: dict[tuple[str, int], list[int]] = {}
    for place in chosen:
        number, state = int(trials.numbers[place]), str(trials.states[place])
        groups.setdefault(_group(state, number == best and bool(trials.counts[place]), study.name, number), []).append(
            number
        )
    marks = [
        _joined([curves[n] for n in members], name, color)
        for (name, color), members in sorted(groups.items(), key=_last_best)
    ]
    better = "higher" if objective.goal == "max" else "lower"
    return Figure(
        kind="curves",
        title=f"{study.name}: learning curves",
        caption=f"{read.drawn(len(chosen), len(numbers), 'curves').capitalize()} drawn"
        + (f" (the best {BEST} and a sample)" if len(chosen) < len(numbers) else "")
        + f"; {better} is better.",
        panels=[Panel(Axis("step", whole=_whole(curves)), Axis(objective.metric), marks)],
    )


def _group(state: str, best: bool, study: str, number: int) -> tuple[str, int]:
    if best:
        return f"best ({study}:{number})", VERMILION
    colors = {State.COMPLETE: BLUE, State.REUSED: BLUE, State.PRUNED: PURPLE, State.RUNNING: GREEN}
    known = next((known for known in colors if known == state), None)
    return (state, colors[known]) if known is not None else (state, GREY)


def _last_best(group: tuple[tuple[str, int], Sequence[int]]) -> tuple[bool, str]:
    (name, color), _ = group
    return color == VERMILION, name


def _joined(curves: Sequence[Sequence[tuple[float, float]]], name: str, color: int) -> Mark:
    """Several curves as one line with gaps."""
    x = [value for curve in curves for value in (*(step for step, _ in curve), math.nan)]
    y = [value for curve in curves for value in (*(value for _, value in curve), math.nan)]
    return Line(x, y, name, color, width=2.2 if color == VERMILION else 0.9)


def _whole(curves: Mapping[Any, Sequence[tuple[float, float]]]) -> bool:
    """Whether steps are counted in whole numbers, as epochs are."""
    return all(step == int(step) for curve in curves.values() for step, _ in curve)


def _of_run(subject: Subject) -> Figure:
    run = subject.run
    assert run is not None
    address = address_of(subject.searched, subject.trial or run, run)
    reports = subject.store.curve(run)
    series_of: dict[str, list[tuple[float, float]]] = {}
    for report in reports:
        for name, value in report.metrics.items():
            series_of.setdefault(name, []).append((report.step, value))
    curves = {name: curve for name, curve in series_of.items() if len(curve) > 1}
    learned = {objective.metric for objective in subject.view.objectives}
    curves = {  # a count of parameters is none
        name: curve
        for name, curve in curves.items()
        if name in learned or name.startswith(PARTS) or len({value for _, value in curve}) > 1
    }
    if not curves:
        raise NotFoundError(f"{address} has reported {len(reports)} step{'s' * (len(reports) != 1)}; a curve needs two")
    panels: dict[str, list[Mark]] = {}
    for name, curve in curves.items():
        what = next((name.removeprefix(part) for part in PARTS if name.startswith(part)), name)
        marks = panels.setdefault(what, [])
        marks.append(Line([step for step, _ in curve], [value for _, value in curve], name, series(len(marks))))
    chosen = sorted(panels, key=lambda what: (-len(panels[what]), list(panels).index(what)))[:PANELS]
    across = min(3, len(chosen))
    return Figure(
        kind="curves",
        title=f"{address}: learning curves",
        caption=f"{read.drawn(sum(len(panels[what]) for what in chosen), len(curves), 'metrics').capitalize()} "
        f"over {plural(len(reports), 'step')}.",
        panels=[Panel(Axis("step", whole=_whole(curves)), Axis(what), panels[what]) for what in chosen],
        columns=across,
        size=(4.2 * across + 0.6, 3.2 * math.ceil(len(chosen) / across) + 0.8),
    )


KIND = Kind("learning curves of trials, or of one run", of_runs, _make)
