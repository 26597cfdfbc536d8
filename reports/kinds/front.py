"""The Pareto front of a study of two objectives, or of three as their pairs, and the hypervolume over its trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy

from nas_core.errors import NotFoundError
from nas_core.evaluation import Objective
from nas_core.pareto import hypervolume
from nas_core.records import BASELINE
from reports import trials as read
from reports.figure import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, Axis, Figure, Line, Mark, Panel, Points
from reports.kind import Kind, Subject, of_study
from reports.texts import number
from reports.trials import Trials
from studies.analysis import leading
from studies.documents import name_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

PART = 1_000  # trials that are compared with the front at once
VOLUMES = 200  # hypervolumes that are computed, as many as a line shows


def _why_not(subject: Subject) -> str | None:
    if (reason := of_study(subject)) is not None or subject.study is None:
        return reason
    count = len(subject.study.spec.objectives)
    return None if count in (2, 3) else f"has {count} objective{'s' * (count > 1)}, and a front is drawn of 2 or 3"


def _make(subject: Subject) -> Figure:
    study, objectives = subject.searched, subject.view.objectives
    trials = read.read(subject.store, study, objectives)
    if not trials.measured.any():
        raise NotFoundError(f"study '{study.name}' has no measured trial yet; there is nothing to draw")
    front = _front(subject, trials)
    baselines = [
        (name_of(run), [run.metrics[one.metric] for one in objectives])
        for run in subject.store.runs(study, BASELINE)
        if all(one.metric in run.metrics for one in objectives)
    ]
    panels, shown = [], 0
    for pair in combinations(range(len(objectives)), 2):
        drawn, marks = _pair(subject, trials, objectives, front, pair)
        shown = max(shown, drawn)
        points = [values for _, values in baselines]
        if points:
            x, y = ([values[place] for values in points] for place in pair)
            marks.append(Points(x, y, [f"baseline {name}" for name, _ in baselines], "baselines", BLACK, "square", 6.0))
        panels.append(Panel(_axis(objectives[pair[0]]), _axis(objectives[pair[1]]), marks))
    numbers, volumes, corner = volumes_over(trials)
    reference = ", ".join(
        f"{one.metric} {number(one.orient(value))}" for one, value in zip(objectives, corner, strict=True)
    )
    panels.append(
        Panel(
            Axis("trial", whole=True),
            Axis("hypervolume"),
            [Line(numbers, volumes, "", GREEN, steps=True)] if numbers else [],
            "hypervolume",
        )
    )
    measured = int(trials.measured.sum())
    return Figure(
        kind="front",
        title=f"{study.name}: Pareto front",
        caption=f"{read.drawn(shown, measured, 'measured trials').capitalize()} drawn, {len(front):,} of them on the "
        f"front. The hypervolume is above the worst values of feasible trials ({reference}).",
        panels=panels,
        columns=2,
        size=(10.0, 4.4 if len(objectives) == 2 else 8.0),
    )


def _axis(objective: Objective) -> Axis:
    return Axis(f"{objective.metric} ({'higher' if objective.goal == 'max' else 'lower'} is better)")


def _front(subject: Subject, trials: Trials) -> NDArray[numpy.int64]:
    """The positions of the trials on the front."""
    numbers = leading.front_numbers(subject.store, subject.searched) if trials.counts.any() else []
    return numpy.searchsorted(trials.numbers, numpy.array(numbers, dtype=numpy.int64))


def _pair(
    subject: Subject,
    trials: Trials,
    objectives: Sequence[Objective],
    front: NDArray[numpy.int64],
    pair: tuple[int, int],
) -> tuple[int, list[Mark]]:
    """How many trials are drawn, and the marks."""
    first, second = pair
    among = numpy.flatnonzero(trials.measured)
    kept = among[read.thinned(trials.values[among, first], trials.values[among, second])]
    drawn = numpy.zeros(len(trials), dtype=bool)
    drawn[kept] = drawn[front] = True
    on_front = numpy.zeros(len(trials), dtype=bool)
    on_front[front] = True
    dot = read.dot(int(drawn.sum()))
    groups = {
        ("infeasible", ORANGE, "cross", dot): trials.measured & ~trials.feasible,
        ("smaller budget", GREY, "open", dot): trials.measured & trials.feasible & ~trials.counts,
        ("dominated", BLUE, "circle", dot): trials.counts & ~on_front,
        ("front", VERMILION, "circle", 6.0): on_front,
    }
    marks: list[Mark] = []
    if len(objectives) == 2 and len(front):
        marks.append(_stairs(trials.values[front], objectives))
    for (name, color, marker, size), which in groups.items():
        places = numpy.flatnonzero(which & drawn)
        if len(places):
            texts = tuple(read.text(subject.searched, trials, places, objectives))
            x, y = (trials.values[places, axis].tolist() for axis in pair)
            marks.append(Points(x, y, texts, name, color, marker, size))  # type: ignore[arg-type]
    return int(drawn.sum()), marks


def _stairs(values: NDArray[numpy.float64], objectives: Sequence[Objective]) -> Line:
    """The border of what two objectives' front dominates."""
    order = values[numpy.lexsort((values[:, 1], values[:, 0]))]
    x, y = [float(order[0, 0])], [float(order[0, 1])]
    rises = objectives[0].goal == "max"  # to the right of a point lies what is better, where it does
    for left, right in pairwise(order):
        # What both dominate ends at the worse of each.
        x += [float(left[0]), float(right[0])] if rises else [float(right[0]), float(right[0])]
        y += [float(right[1]), float(right[1])] if rises else [float(left[1]), float(right[1])]
    return Line(x, y, "", VERMILION, width=1.0)


def volumes_over(trials: Trials) -> tuple[list[float], list[float], tuple[float, ...]]:
    """After which trials the hypervolume of those before was how large, and above which corner (oriented): the worst
    values of all that count. Computed where the front changes, at most `VOLUMES` times."""
    places = numpy.flatnonzero(trials.counts)
    if not len(places):
        return [], [], (numpy.nan,) * trials.oriented.shape[1]
    corner = trials.oriented[places].min(0)
    fronts = list(_changes(trials.oriented, places))
    chosen = {round(place) for place in numpy.linspace(0, len(fronts) - 1, min(len(fronts), VOLUMES))}
    found = [
        (float(trials.numbers[place]), hypervolume(front, corner))
        for position, (place, front) in enumerate(fronts)
        if position in chosen
    ]
    numbers, volumes = map(list, zip(*found, strict=True))
    last = float(trials.numbers[-1])
    return [*numbers, last], [*volumes, volumes[-1]], tuple(corner.tolist())


def _changes(
    values: NDArray[numpy.float64], places: NDArray[numpy.int64]
) -> Iterator[tuple[int, NDArray[numpy.float64]]]:
    """The positions of the trials that changed the front, with the front that they made."""
    front = numpy.empty((0, values.shape[1]))
    for start in range(0, len(places), PART):
        part = places[start : start + PART]
        # Most are ruled out by the front at the beginning of their part.
        below = (front[:, None, :] >= values[part][None, :, :]).all(2).any(0)
        for place in part[~below].tolist():
            point = values[place]
            if (front >= point).all(1).any():
                continue
            front = numpy.vstack([front[~(point >= front).all(1)], point])
            yield place, front


KIND = Kind("the Pareto front of two or three objectives, and its hypervolume over the trials", _why_not, _make)
