"""Ranks against ranks: how well what is cheap orders what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nas_core.public import public
from reports.figure import BLUE, Axis, Figure, Panel, Points
from studies.analysis.correlation import Correlation, ranks
from studies.analysis.pool import Target
from studies.analysis.score import Scoreboard

ACROSS = 4  # panels in a row


def figure(board: Scoreboard, target: Target, correlations: Mapping[str, Correlation]) -> Figure:
    """One panel per score of a scoreboard; architectures without a result are left out."""
    kept = [index for index, arch in enumerate(board.archs) if arch.key in target.values]
    results = [target.values[board.archs[index].key] for index in kept]
    texts = [board.archs[index].key for index in kept]
    panels = [
        panel(
            f"{public(name)}: Spearman {two_digits(correlation.spearman.value)}",
            [board.values[name][index] for index in kept],
            results,
            texts,
            f"rank by {target.metric}",
        )
        for name, correlation in correlations.items()
    ]
    title = f"{len(kept)} architectures, {target.source}"
    return in_rows(
        "scores", title, "The best by a score are at the right, the best by what was measured at the top.", panels
    )


def panel(title: str, x: Sequence[float], y: Sequence[float], texts: Sequence[str], measured: str) -> Panel:
    """Ranks of x by ranks of y, both with the best last."""
    size = max(2.0, min(7.0, 40 / math.sqrt(max(len(x), 1))))
    marks = [Points(ranks(x).tolist(), ranks(y).tolist(), texts, color=BLUE, size=size)]
    return Panel(Axis("rank by score", whole=True), Axis(measured, whole=True), marks, title)


def in_rows(kind: str, title: str, caption: str, panels: Sequence[Panel]) -> Figure:
    """Panels of one size, a few in a row."""
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    return Figure(kind, title, caption, panels, across, (max(3.4 * across, 5.0), 3.3 * down + 0.8))


def two_digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
