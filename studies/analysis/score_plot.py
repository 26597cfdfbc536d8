"""Picture of scores against results: one panel per score, ranks against ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy

from nas_core.errors import MachineError
from nas_core.public import public
from studies.analysis.correlation import Correlation, ranks
from studies.analysis.pool import Target
from studies.analysis.score import Scoreboard

ACROSS = 4  # panels in a row


def draw(file: Path, board: Scoreboard, target: Target, correlations: Mapping[str, Correlation]) -> None:
    """Write a .png or .svg file; architectures without a result are left out. Raises MachineError where it cannot be
    written."""
    from matplotlib.figure import Figure

    kept = [index for index, arch in enumerate(board.archs) if arch.key in target.values]
    results = ranks([target.values[board.archs[index].key] for index in kept])
    across = min(ACROSS, len(correlations))
    down = math.ceil(len(correlations) / across)
    figure = Figure(figsize=(max(3.2 * across, 4), 3.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, correlation) in zip(panels, correlations.items(), strict=False):
        scores = ranks([board.values[name][index] for index in kept])
        axes.scatter(scores, results, s=max(4.0, 40 / math.sqrt(len(kept))), alpha=0.6, linewidths=0)
        axes.set_title(f"{public(name)}: Spearman {_two_digits(correlation.spearman.value)}", fontsize="small")
        axes.set_aspect("equal")
        axes.locator_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in panels[len(correlations) :]:
        axes.remove()
    figure.supxlabel("rank by score (the best at the right)", fontsize="small")
    figure.supylabel(f"rank by {target.metric}", fontsize="small")
    figure.suptitle(f"{len(kept)} architectures, {target.source}")
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise MachineError(f"'{file}' cannot be written: {error.strerror}") from None


def _two_digits(value: float) -> str:
    return "-" if numpy.isnan(value) else f"{value:.2f}"
