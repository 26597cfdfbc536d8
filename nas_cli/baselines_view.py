"""Baselines of a study as text: what they came to, and how the best trial compares with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nas_cli import render
from nas_cli.render import number
from studies.documents import View, name_of

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.analysis.baselines import Comparison

EQUAL = 0.02  # as near are parameters that are called equal


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
    lines = [line(name_of(run) + sized(one.sizes), one) for run, several in found for one in several]
    if lines:
        render.emit("", "best beside baselines", *(f"  {text}" for text in lines))


def sized(sizes: Mapping[str, float]) -> str:
    """How large a baseline is beside the best: ` of equal active parameters`, ` of 0.5x the active, 2x all parameters`;
    nothing where a sample passes all of both."""
    if not sizes:
        return ""
    active, every = sizes["active_params"], sizes["params"]
    same = [name for name, share in (("active", active), ("total", every)) if abs(share - 1) <= EQUAL]
    if same:
        return f" of equal {' and '.join(same)} parameters"
    return f" of {active:.3g}x the active, {every:.3g}x the total parameters"


def line(name: str, one: Comparison) -> str:
    """`resnet: val_accuracy 0.91, best +0.012 (95% +0.002 to +0.022, 3 and 3 seeds): better`."""
    difference = one.difference
    if difference is None:
        return f"{name}: no {one.metric} to compare with"
    spread = "one evaluation each"
    if one.interval is not None:
        low, high = one.interval
        spread = f"95% {low:+.4g} to {high:+.4g}, {one.seeds[0]} and {one.seeds[1]} seeds"
    return f"{name}: {one.metric} {number(one.value)}, best {difference:+.4g} ({spread}): {one.says}"
