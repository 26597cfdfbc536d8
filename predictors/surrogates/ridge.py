"""Ridge regression on standardised encodings: the linear model with a normal prior on its weights.

Weights have variance s, observations noise s v; v is the one of a grid with the largest marginal likelihood, in which
s is profiled out (MacKay, "Bayesian Interpolation", 1992). The standard deviation is that of the linear function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from predictors.surrogate import Problem
from predictors.surrogates.rows import Observations, Rows, RowsConfig, Scaling, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]


class RidgeConfig(RowsConfig):
    """The penalties are relative to rows of norm 1."""

    penalties: tuple[float, ...] = Field(
        default=tuple(10.0**power for power in range(-6, 3)), min_length=1, description="the grid of v"
    )
    weight: float = Field(default=0.35, gt=0, description="standard deviation of a column of scores")


class LinearPosterior:
    """The posterior on plain rows [n, columns] with targets [n]."""

    def __init__(self, rows: Floats, targets: Floats, groups: Sequence[str], config: RidgeConfig) -> None:
        self._scaling = Scaling(rows, groups, 1.0, config.weight)
        left, singular, self._right = numpy.linalg.svd(self._scaling(rows), full_matrices=False)
        self._mean = float(targets.mean())
        centred = targets - self._mean
        along = left.T @ centred
        rest = max(float(centred @ centred - along @ along), 0.0)
        best = -numpy.inf
        for penalty in config.penalties:
            power = (float((along**2 / (singular**2 + penalty)).sum()) + rest / penalty) / len(targets)
            power = max(power, 1e-12)
            logs = numpy.log(singular**2 + penalty).sum() + (len(targets) - len(singular)) * numpy.log(penalty)
            likelihood = -0.5 * len(targets) * numpy.log(power) - 0.5 * logs
            if likelihood > best:
                best, self.penalty, self._power = likelihood, penalty, power
        self._shrunk = singular / (singular**2 + self.penalty) * along
        self._known = singular**2 / (singular**2 + self.penalty)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and variance [n]."""
        scaled = self._scaling(rows)
        along = scaled @ self._right.T
        variance = (scaled**2).sum(axis=1) - (along**2 * self._known).sum(axis=1)
        return self._mean + along @ self._shrunk, self._power * numpy.maximum(variance, 0)


class Ridge:
    """Ridge regression of normal scores of ranks; predictions are mapped back to values."""

    Config: ClassVar[type[RidgeConfig]] = RidgeConfig

    def __init__(self, problem: Problem, config: RidgeConfig) -> None:
        self._config = config
        self._rows = Rows(problem, config)
        self._fitted: tuple[Observations, LinearPosterior] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        seen = self._rows.observe(archs, values)
        self._fitted = seen, LinearPosterior(seen.rows, seen.targets, self._rows.groups, self._config)

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        seen, posterior = fitted(self._fitted, "the ridge regression")
        mean, variance = posterior.predict(self._rows.encode(archs))
        return seen.back(mean, numpy.sqrt(variance))
