"""Baselines of a study as text: what they came to, and how the best trial compares with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas_cli import render
from nas_cli.render import number
from reports.facts import comparison, sized
from studies.documents import View, name_of

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.analysis.baselines import Comparison


def table(view: View, runs: Sequence[Run]) -> None:
    """Their objectives, or why they have none."""
    if not runs:
        return
    names = [objective.metric for objective in view.objectives]
    rows = [
        [
            view.address(run),
            name_of(run),
            str(run.state),
            *(number(run.metrics.get(name)) for name in names),
            render.clean(run.verdict.reason or ""),
        ]
        for run in runs
    ]
    render.emit("", "baselines")
    render.table(["run", "name", "state", *names, "reason"], rows, right=names)


def comparisons(found: Sequence[tuple[Run, Sequence[Comparison]]]) -> None:
    """A line for each baseline and objective."""
    lines = [comparison(name_of(run) + sized(one.sizes), one) for run, several in found for one in several]
    if lines:
        render.emit("", "best beside baselines", *(f"  {text}" for text in lines))
