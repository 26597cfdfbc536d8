"""Several studies beside one another: the best so far over what they had evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from nas_core.strategy import State
from reports import trials as read
from reports.figure import Axis, Figure, Line, Mark, Panel, series
from reports.trials import incumbents
from studies.documents import objectives_of
from studies.records import Study
from studies.store.store import Store

EVALUATED = (State.COMPLETE, State.PRUNED, State.FAILED)


def figure(store: Store, studies: Sequence[Study]) -> Figure:
    """A panel for each first objective. A reused trial costs nothing, as it does for `--trials`."""
    panels: dict[str, list[Mark]] = {}
    goals = {}
    for place, study in enumerate(studies):
        objectives = objectives_of(study.spec)
        trials = read.read(store, study, objectives)
        marks = panels.setdefault(objectives[0].metric, [])
        goals[objectives[0].metric] = objectives[0].goal
        if not len(trials):
            continue
        cost = numpy.cumsum(numpy.isin(trials.states, EVALUATED))
        corners = incumbents(trials)
        if len(corners):
            x = [*cost[corners].tolist(), int(cost[-1])]
            y = trials.values[corners, 0].tolist()
            marks.append(Line(x, [*y, y[-1]], study.name, series(place), steps=True))
    better = {metric: "higher" if goal == "max" else "lower" for metric, goal in goals.items()}
    return Figure(
        kind="compare",
        title=" and ".join(study.name for study in studies) if len(studies) < 4 else f"{len(studies)} studies",
        caption="; ".join(f"{metric}: {word} is better" for metric, word in better.items()) + ".",
        panels=[
            Panel(Axis("evaluations", whole=True), Axis(f"best {metric} so far"), marks)
            for metric, marks in panels.items()
        ],
        size=(8.0, 0.6 + 3.6 * len(panels)),
    )
