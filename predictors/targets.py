"""What surrogates learn: checked observations, their values as normal scores of ranks, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from nas_core.architecture import Architecture
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]


def checked(archs: Sequence[Architecture], values: Sequence[float]) -> tuple[list[Architecture], Floats]:
    """The observations in an order that does not depend on how they were given.

    Raises UsageError as `Surrogate.fit` does.
    """
    numbers = numpy.asarray(values, dtype=numpy.float64)
    if len(archs) != len(numbers):
        raise UsageError(f"a surrogate needs one value per architecture, got {len(archs)} and {len(numbers)}")
    if len(archs) < 2:
        raise UsageError(f"a surrogate needs at least 2 observations, got {len(archs)}")
    if not numpy.isfinite(numbers).all():
        bad = int(numpy.flatnonzero(~numpy.isfinite(numbers))[0])
        raise UsageError(f"a surrogate needs finite values; that of observation {bad} is {numbers[bad]}")
    order = sorted(range(len(archs)), key=lambda position: (archs[position].key, numbers[position]))
    return [archs[position] for position in order], numbers[order]


@dataclass(frozen=True)
class NormalScores:
    """Values as the normal quantiles of their mean ranks, and the way back: piecewise linear between observations.

    Beyond the observations it goes on with the mean slope of that half, so that the order of predictions survives.
    Constant values have score 0, and every score is that constant.
    """

    scores: Floats  # of the distinct values, rising
    values: Floats  # the distinct values

    @classmethod
    def of(cls, values: Floats, share: float = 0.0) -> tuple[NormalScores, Floats]:
        """The map, and the scores of the values [n] in their order.

        `share` (below 1) of a score is the standardised value itself, the lowest twentieth cut off: ranks alone make
        much of small differences between values that are nearly equal.
        """
        from scipy.special import ndtri
        from scipy.stats import rankdata

        scores = ndtri((rankdata(values) - 0.5) / len(values))
        if share:
            cut = numpy.maximum(values, numpy.quantile(values, 0.05))
            deviation = cut.std()
            scores = (1 - share) * scores + (share * (cut - cut.mean()) / deviation if deviation > 0 else 0.0)
        distinct, first = numpy.unique(values, return_index=True)
        return cls(scores[first], distinct), scores

    @property
    def constant(self) -> bool:
        return len(self.values) == 1

    def back(self, scores: Floats) -> Floats:
        """Values of any scores [n]."""
        if self.constant:
            return numpy.full(len(scores), self.values[0])
        middle = len(self.values) // 2
        low = self._slope(0, middle)
        high = self._slope(min(middle, len(self.values) - 2), -1)
        found = numpy.interp(scores, self.scores, self.values)
        found += numpy.minimum(scores - self.scores[0], 0) * low
        return numpy.asarray(found + numpy.maximum(scores - self.scores[-1], 0) * high)

    def spread(self, mean: Floats, deviation: Floats) -> Floats:
        """Standard deviations of values: half the distance of what is one deviation up and one down."""
        return (self.back(mean + deviation) - self.back(mean - deviation)) / 2

    def _slope(self, start: int, stop: int) -> float:
        return float((self.values[stop] - self.values[start]) / (self.scores[stop] - self.scores[start]))
