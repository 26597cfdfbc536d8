"""One number per outcome for models of a single target, whatever the objectives and constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from nas_core.strategy import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray


def normal_scores(outcomes: Sequence[Outcome], weights: NDArray[numpy.float64]) -> list[float]:
    """Targets in the order of the outcomes, higher is better; equal outcomes share the mean of their ranks.

    Feasible outcomes are ordered by -max(w * loss) - 0.05 sum(w * loss), where the losses are those of the
    objectives, scaled to [0, 1] over the feasible outcomes; infeasible ones, below them, by their violation.
    """
    from scipy.special import ndtri

    feasible = [place for place, outcome in enumerate(outcomes) if outcome.values is not None and not outcome.violation]
    keys = numpy.array([[outcome.violation, 0.0] for outcome in outcomes])
    if feasible:
        values = numpy.array([outcomes[place].values for place in feasible])
        best, span = values.max(axis=0), numpy.ptp(values, axis=0)
        losses = weights * (best - values) / numpy.where(span > 0, span, 1.0)
        keys[feasible, 1] = losses.max(axis=1) + 0.05 * losses.sum(axis=1)
    _, groups, counts = numpy.unique(keys, axis=0, return_inverse=True, return_counts=True)
    positions = numpy.cumsum(counts) - (counts - 1) / 2  # 1 is the best
    scores = ndtri(1 - (positions - 0.5) / len(outcomes))
    return [float(score) for score in scores[groups.reshape(-1)]]
