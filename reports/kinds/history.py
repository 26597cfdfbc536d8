"""The values of trials in the order of their numbers, the best so far, and how many were in which state."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import numpy
import sqlalchemy as sa

from nas_core.errors import NotFoundError
from nas_core.evaluation import Objective
from nas_core.records import RETRAIN, TRIAL
from nas_core.strategy import State
from reports import trials as read
from reports.figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Axis,
    Figure,
    Line,
    Mark,
    Panel,
    Points,
)
from reports.kind import Kind, Subject, of_study
from reports.trials import Trials
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

LEVEL = 0.95  # of the intervals of trainings
COLORS = {
    State.COMPLETE: BLUE,
    State.REUSED: SKY,
    State.PRUNED: PURPLE,
    State.FAILED: VERMILION,
    State.REJECTED: ORANGE,
    State.RUNNING: GREEN,
    State.WAITING: GREY,
}
CORNERS = 500  # of a line of counts


def _make(subject: Subject) -> Figure:
    study, objectives = subject.searched, subject.view.objectives
    trials = read.read(subject.store, study, objectives)
    if not len(trials):
        raise NotFoundError(f"study '{study.name}' has no trials yet; there is nothing to draw")
    shown, marks = _values(study, trials, objectives)
    running = _running(subject.store, study, objectives[0], trials)
    again, marks_again = _trained_again(subject.store, study, objectives[0], trials)
    first = objectives[0]
    better = "higher" if first.goal == "max" else "lower"
    sentences = [
        f"{read.drawn(shown, int(trials.measured.sum()), 'measured trials').capitalize()} drawn; {better} is better.",
        *(
            [f"Bars are {LEVEL:.0%} intervals of the mean over several trainings of {again} incumbents."]
            if again
            else []
        ),
    ]
    return Figure(
        kind="history",
        title=f"{study.name}: history",
        caption=" ".join(sentences),
        panels=[
            Panel(Axis("trial", whole=True), Axis(first.metric), [*marks, *running, *marks_again], height=2.0),
            Panel(Axis("trial", whole=True), Axis("trials so far", whole=True), list(_counts(trials)), "states"),
        ],
        size=(8.0, 6.5),
    )


def _values(study: Study, trials: Trials, objectives: Sequence[Objective]) -> tuple[int, list[Mark]]:
    """How many trials are drawn, and the marks: what counts, what does not and why, and the best so far."""
    best = read.incumbents(trials)
    full = trials.budgets == (trials.budgets[trials.measured].max() if trials.measured.any() else math.inf)
    groups = {
        ("smaller budget", GREY, "open"): trials.measured & ~full,
        ("infeasible", ORANGE, "cross"): trials.measured & full & ~trials.feasible,
        ("trials", BLUE, "circle"): trials.measured & full & trials.feasible,
    }
    kept = read.thinned(trials.numbers[trials.measured].astype(float), trials.values[trials.measured, 0])
    drawn = numpy.zeros(len(trials), dtype=bool)
    drawn[numpy.flatnonzero(trials.measured)[kept]] = True
    drawn[best] = True
    marks: list[Mark] = []
    for (name, color, marker), among in groups.items():
        places = numpy.flatnonzero(among & drawn)
        if len(places):
            texts = tuple(read.text(study, trials, places, objectives))
            x, y = trials.numbers[places].tolist(), trials.values[places, 0].tolist()
            marks.append(Points(x, y, texts, name, color, marker, read.dot(int(drawn.sum()))))  # type: ignore[arg-type]
    if len(best):
        x, y = trials.numbers[best].tolist(), trials.values[best, 0].tolist()
        last = int(trials.numbers[-1])
        marks.append(Line([*x, last], [*y, y[-1]], "best so far", VERMILION, steps=True))
    return int(drawn.sum()), marks


def _running(store: Store, study: Study, objective: Objective, trials: Trials) -> Iterator[Mark]:
    """The last reported values of the trials that run now."""
    numbers = trials.numbers[trials.states == State.RUNNING].tolist()
    r, m = t.runs.c, t.metrics.c
    found: dict[int, tuple[float, float]] = {}
    for start in range(0, len(numbers), 500):
        statement = (
            sa.select(r.number, m.step, m.value)
            .join(t.metrics, m.run == r.id)
            .where(r.study == study.id, t.is_kind(r, TRIAL), r.number.in_(numbers[start : start + 500]))
            .where(m.name == objective.metric, m.value.isnot(None))
            .order_by(r.number, m.step)
        )
        found |= {number: (step, value) for number, step, value in store.read(statement)}
    if found:
        texts = [
            f"{study.name}:{number}  running, {value:.6g} at step {step:g}" for number, (step, value) in found.items()
        ]
        yield Points(list(found), [value for _, value in found.values()], texts, "running", GREEN, "diamond", 6.0)


def _trained_again(store: Store, study: Study, objective: Objective, trials: Trials) -> tuple[int, list[Mark]]:
    """Of incumbents that were trained several times with the same settings the means with their intervals: how many
    there are, and the marks."""
    from scipy.stats import t as student

    best = {int(trials.numbers[place]) for place in read.incumbents(trials)}
    parent, child, m = t.runs.alias(), t.runs.c, t.metrics.c
    joined = sa.join(t.runs, parent, child.parent == parent.c.id).join(t.metrics, m.run == child.id)
    several = (
        sa.select(parent.c.number, child.recipe, m.value, child.id)
        .select_from(joined)
        .where(child.study == study.id, t.is_kind(child, RETRAIN), child.state == State.COMPLETE)
        .where(parent.c.kind == TRIAL, m.name == objective.metric, m.value.isnot(None))
        .order_by(child.id, m.step)
    )
    values: dict[tuple[int, str], dict[int, float]] = {}
    for number, recipe, value, run in store.read(several):
        if number in best:
            values.setdefault((number, recipe or ""), {})[run] = value  # the last step stays
    largest: dict[int, list[float]] = {}
    for (number, _), runs in values.items():
        if len(runs) > 1 and len(runs) > len(largest.get(number, ())):
            largest[number] = list(runs.values())
    if not largest:
        return 0, []
    means = [statistics.fmean(each) for each in largest.values()]
    halves = [
        float(student.ppf((1 + LEVEL) / 2, len(each) - 1)) * statistics.stdev(each) / math.sqrt(len(each))
        for each in largest.values()
    ]
    texts = [
        f"{study.name}:{number}  {mean:.6g} ± {half:.2g} of {len(each)} trainings"
        for (number, each), mean, half in zip(largest.items(), means, halves, strict=True)
    ]
    return len(largest), [Points(list(largest), means, texts, "trained again", BLACK, "square", 5.0, halves)]


def _counts(trials: Trials) -> Iterator[Mark]:
    """Per state how many trials with numbers up to this one are in it."""
    places = numpy.unique(numpy.linspace(0, len(trials) - 1, min(len(trials), CORNERS)).round().astype(int))
    for state, color in COLORS.items():
        counts = numpy.cumsum(trials.states == state)
        if counts[-1]:
            x, y = trials.numbers[places].tolist(), counts[places].tolist()
            yield Line(x, y, f"{state} {counts[-1]:,}", color, steps=True)


KIND = Kind("values of trials, the best so far and its confidence, running trials and states", of_study, _make)
