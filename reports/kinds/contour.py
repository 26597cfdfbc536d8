"""The first objective by pairs of choices, as heat maps: between two options there is nothing to interpolate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from nas_core.choice import Value
from nas_core.errors import NotFoundError
from reports.figure import Axis, Cells, Figure, Panel
from reports.kind import Kind, Subject, of_study
from reports.kinds import mirrored
from reports.mirrored import Mirrored


def _make(subject: Subject) -> Figure:
    """Raises NotFoundError where fewer than two choices differ."""
    found = mirrored.made(subject, "contour", "rank", by="")
    params = list(found.params or ())
    if len(params) < 2:
        raise NotFoundError(f"in study '{subject.searched.name}' one choice differs, {params[0]}; a pair needs two")
    pairs = list(combinations(params, 2))
    grids = [_best(found, across, down) for across, down in pairs]
    known = [value for grid in grids for row in grid for value in row if not math.isnan(value)]
    panels: list[Panel] = []
    for (across, down), grid in zip(pairs, grids, strict=True):
        x, y = (Axis(choice, names=[str(option) for option in _taken(found, choice)]) for choice in (across, down))
        last = len(panels) == len(pairs) - 1
        panels.append(Panel(x, y, [Cells(grid, f"best {found.metric}", min(known), max(known), bar=last)]))
    return Figure(
        kind="contour",
        title=found.title,
        caption=f"{found.caption} A cell is the best of the trials with both options.",
        panels=panels,
        columns=len(panels),
        size=(3.6 * len(panels) + 1.2, 4.4),
    )


def _best(found: Mirrored, across: str, down: str) -> list[list[float]]:
    """Per option of `down` and of `across` the best value, NaN where no trial has both."""
    better = max if found.goal == "max" else min
    best: dict[tuple[Value, Value], float] = {}
    for trial in found.trials:
        if trial.value is not None and across in trial.params and down in trial.params:
            pair = trial.params[down], trial.params[across]
            best[pair] = better(best.get(pair, trial.value), trial.value)
    return [[best.get((row, column), math.nan) for column in _taken(found, across)] for row in _taken(found, down)]


def _taken(found: Mirrored, choice: str) -> Sequence[Value]:
    """The options that the trials have, in the order of the space."""
    taken = {trial.params[choice] for trial in found.trials if choice in trial.params}
    return [option for option in found.options[choice] if option in taken]


KIND = Kind("the best first objective by pairs of choices", of_study, _make)
