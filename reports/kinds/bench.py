"""A bench: regret over the queries, and the strategies' mean ranks with the critical difference."""

from __future__ import annotations

import math

import numpy

from nas_core.public import public
from reports.figure import BLACK, Axis, Band, Figure, Labels, Line, Mark, Panel, Segments, series
from reports.kind import Kind, Subject, of_bench
from studies.bench.curves import Curves, load
from studies.bench.plan import Plan
from studies.bench.standings import Standings, rank

CORNERS = 1_000  # of a curve


def figure(name: str, curves: Curves, plan: Plan, standings: Standings) -> Figure:
    """Both in one: mean regret, and below it the ranks where there are several strategies."""
    panels = [_regret(curves, plan)]
    if len(curves.labels) > 1:
        panels.append(_ranks(standings))
    return Figure(
        "bench", name, _caption(curves, plan), panels, size=(8.0, 3.6 + sum(panel.height for panel in panels))
    )


def _caption(curves: Curves, plan: Plan) -> str:
    seeds = len(curves.seeds)
    counts = f"{len(curves.labels)} strategies, {plan.queries:,} queries"
    return f"Means over {seeds} of {plan.seeds} seeds with their standard errors; {counts}."


def _regret(curves: Curves, plan: Plan) -> Panel:
    regret = plan.landscape.optimum - curves.validation
    floor = _floor(regret.mean(axis=1))
    places = numpy.unique(numpy.linspace(0, plan.queries - 1, min(plan.queries, CORNERS)).round().astype(int))
    queries = (places + 1).tolist()
    marks: list[Mark] = []
    for row, label in enumerate(curves.labels):
        mean = regret[row].mean(axis=0)
        error = regret[row].std(axis=0) / math.sqrt(len(curves.seeds))
        low, high, middle = (
            numpy.maximum(values, floor)[places].tolist() for values in (mean - error, mean + error, mean)
        )
        marks.append(Band(queries, low, high, "", series(row), steps=True))
        marks.append(Line(queries, middle, str(public(label)), series(row), steps=True))
    highest = float((regret.mean(axis=1)).max())
    return Panel(
        Axis("queries", limits=(1, max(plan.queries, 2)), whole=True),
        Axis(f"regret of {plan.objective.metric}", log=True, limits=(floor, max(highest * 1.3, floor * 2))),
        marks,
        height=3.0,
    )


def _floor(means: numpy.ndarray) -> float:
    """Where the logarithmic axis ends: a little below the smallest regret that is not 0."""
    positive = means[means > 0]
    return float(positive.min()) / 2 if len(positive) else 1e-6


def _ranks(standings: Standings) -> Panel:
    """A critical-difference diagram (Demsar 2006, figure 1): strategies that a bar joins do not differ."""
    ordered = sorted(standings.strategies, key=lambda standing: standing.rank)
    place = {standing.label: standing.rank for standing in ordered}
    count, left = len(ordered), (len(ordered) + 1) // 2
    bars = len(standings.groups) * 0.5
    stems: list[tuple[float, float, float, float]] = [(1, 0, count, 0)]
    stems += [(tick, 0, tick, 0.15) for tick in range(1, count + 1)]
    names: dict[str, list[tuple[float, float, str]]] = {"left": [], "right": []}
    for index, standing in enumerate(ordered):
        at_left = index < left
        height = -bars - (index if at_left else count - 1 - index) - 1.0
        edge = 1 - 0.05 * count if at_left else count + 0.05 * count
        stems += [(standing.rank, 0, standing.rank, height), (standing.rank, height, edge, height)]
        text = f"{public(standing.label)} {standing.rank:.2f}"
        names["right" if at_left else "left"].append((edge, height, f"{text} " if at_left else f" {text}"))
    groups = [(min(ends), max(ends)) for group in standings.groups if (ends := [place[label] for label in group])]
    difference = min(standings.critical_difference, count - 1)
    ticks = [*range(1, count + 1)]
    marks: list[Mark] = [
        _segments(stems, 0.8),
        _segments([(low, -0.5 * (n + 1), high, -0.5 * (n + 1)) for n, (low, high) in enumerate(groups)], 3.0),
        _segments([(1, 1.2, 1 + difference, 1.2), (1, 1.1, 1, 1.3), (1 + difference, 1.1, 1 + difference, 1.3)], 1.5),
        Labels([1 + difference / 2], [1.65], [f"critical difference {standings.critical_difference:.2f}"]),
        Labels(ticks, [0.45] * count, [str(tick) for tick in ticks]),
        *(
            Labels([x for x, _, _ in found], [y for _, y, _ in found], [text for _, _, text in found], align=align)  # type: ignore[arg-type]
            for align, found in names.items()
            if found
        ),
    ]
    around, low = 0.45 * count, -bars - (left + 0.6)
    return Panel(
        Axis(hidden=True, limits=(1 - around, count + around)),
        Axis(hidden=True, limits=(low, 2.3)),
        marks,
        height=0.25 * (2.3 - low) + 0.3,
    )


def _segments(ends: list[tuple[float, float, float, float]], width: float) -> Segments:
    x0, y0, x1, y1 = (list(values) for values in zip(*ends, strict=True)) if ends else ([], [], [], [])
    return Segments(x0, y0, x1, y1, color=BLACK, width=width)


def _loaded(subject: Subject) -> tuple[str, Curves, Plan]:
    assert subject.bench is not None
    plan = Plan.model_validate(subject.bench.config)
    return subject.bench.name, load(subject.store, subject.bench, plan), plan


def _make_regret(subject: Subject) -> Figure:
    name, curves, plan = _loaded(subject)
    return Figure("regret", f"{name}: regret", _caption(curves, plan), [_regret(curves, plan)])


def _make_differences(subject: Subject) -> Figure:
    name, curves, plan = _loaded(subject)
    panel = _ranks(rank(curves, plan))
    seeds = len(curves.seeds)
    caption = f"Mean ranks by regret over {seeds} seeds; what a bar joins does not differ (Nemenyi's test, 5%)."
    return Figure("differences", f"{name}: mean ranks", caption, [panel], size=(8.0, 1.4 + panel.height))


def _several(subject: Subject) -> str | None:
    if subject.bench is None:
        return of_bench(subject)
    return None if len(Plan.model_validate(subject.bench.config).contenders) > 1 else "compares one strategy"


REGRET = Kind("regret of a bench's strategies over the queries", of_bench, _make_regret)
DIFFERENCES = Kind("mean ranks of a bench's strategies with the critical difference", _several, _make_differences)
