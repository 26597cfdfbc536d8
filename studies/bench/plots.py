"""Pictures of a bench: regret curves, and the strategies' mean ranks with the critical difference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from nas_core.errors import MachineError, UsageError
from nas_core.public import public
from studies.bench.curves import Curves
from studies.bench.plan import Plan
from studies.bench.standings import Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")


def check(file: Path) -> None:
    """Raises UsageError for a place where no picture can be written, before hours are spent on it."""
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot '{file}': pictures are {' or '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise UsageError(f"--plot '{file}': there is no folder '{file.parent}'")


def draw(file: Path, title: str, curves: Curves, plan: Plan, standings: Standings) -> None:
    """Write the picture: mean regret with its standard error over the seeds, and below it the ranks. Raises
    MachineError where the file cannot be written."""
    from matplotlib.figure import Figure

    several = len(curves.labels) > 1
    below = 0.9 + 0.22 * (len(curves.labels) + len(standings.groups)) / 2
    figure = Figure(figsize=(8, 5 + below * several), layout="constrained")
    axes = figure.subplots(1 + several, 1, height_ratios=[5, below][: 1 + several], squeeze=False)[:, 0]
    _regret(axes[0], curves, plan)
    axes[0].set_title(title)
    if several:
        _ranks(axes[1], standings)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise MachineError(f"'{file}' cannot be written: {error.strerror}") from None


def _regret(axes: Axes, curves: Curves, plan: Plan) -> None:
    regret = plan.landscape.optimum - curves.validation
    queries = numpy.arange(1, plan.queries + 1)
    floor = _floor(regret.mean(axis=1))
    for row, label in enumerate(curves.labels):
        mean = regret[row].mean(axis=0)
        error = regret[row].std(axis=0) / math.sqrt(len(curves.seeds))
        (line,) = axes.plot(queries, numpy.maximum(mean, floor), label=public(label), drawstyle="steps-post")
        axes.fill_between(
            queries,
            numpy.maximum(mean - error, floor),
            numpy.maximum(mean + error, floor),
            step="post",
            alpha=0.2,
            color=line.get_color(),
            linewidth=0,
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.set_xlim(1, max(plan.queries, 2))
    axes.set_xlabel("queries")
    axes.set_ylabel(f"regret of {plan.objective.metric}, mean over {len(curves.seeds)} seeds")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3)


def _floor(means: numpy.ndarray) -> float:
    """Where the logarithmic axis ends: a little below the smallest regret that is not 0."""
    positive = means[means > 0]
    return float(positive.min()) / 2 if len(positive) else 1e-6


def _ranks(axes: Axes, standings: Standings) -> None:
    """A critical-difference diagram (Demsar 2006, figure 1): strategies that a bar joins do not differ."""
    ordered = sorted(standings.strategies, key=lambda standing: standing.rank)
    place = {standing.label: standing.rank for standing in ordered}
    count = len(ordered)
    left = (count + 1) // 2
    step = 1.0
    bars = len(standings.groups) * 0.5
    for index, standing in enumerate(ordered):
        at_left = index < left
        row = index if at_left else count - 1 - index
        height = -bars - step * (row + 1)
        edge = 1 - 0.05 * count if at_left else count + 0.05 * count
        axes.plot([standing.rank, standing.rank, edge], [0, height, height], color="black", linewidth=0.8)
        text = f"{standing.label} {standing.rank:.2f}"
        axes.text(edge, height, f"{text} " if at_left else f" {text}", ha="right" if at_left else "left", va="center")
    for index, group in enumerate(standings.groups):
        ends = [place[label] for label in group]
        height = -0.5 * (index + 1)
        axes.plot([min(ends), max(ends)], [height, height], color="black", linewidth=3, solid_capstyle="butt")
    difference = min(standings.critical_difference, count - 1)
    axes.plot([1, 1 + difference], [1.2, 1.2], color="black", marker="|")
    text = f"critical difference {standings.critical_difference:.2f}"
    axes.text(1 + difference / 2, 1.35, text, ha="center", va="bottom")
    axes.plot([1, count], [0, 0], color="black", linewidth=0.8)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.15], color="black", linewidth=0.8)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize="small")
    axes.set_xlim(1 - 0.45 * count, count + 0.45 * count)
    axes.set_ylim(-bars - step * (left + 0.6), 2.3)
    axes.axis("off")
