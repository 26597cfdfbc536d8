"""Gaussian process on standardised encodings (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006).

Kernel s (exp(-|x - x'|^2 / 2 l^2) + v [same observation]): the length scale l and the noise v are those of a small grid
with the largest marginal likelihood (equation 2.30), in which the amplitude s is profiled out; prediction by
equations 2.25 and 2.26 (Algorithm 2.1).
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

SELECTED = 300
"""Observations from which the length scale and the noise are chosen, at most."""


class GaussianProcessConfig(RowsConfig):
    """The grid and the scales are those that were best on NAS-Bench-201 in a search of 100 evaluations."""

    length_scales: tuple[float, ...] = Field(
        default=(2.0, 3.0, 4.5, 6.5, 9.0), min_length=1, description="the grid of l"
    )
    noises: tuple[float, ...] = Field(default=(0.03, 0.1, 0.3), min_length=1, description="the grid of v")
    norm: float = Field(default=6.0, gt=0, description="norm of a standardised architecture, all blocks together")
    weight: float = Field(default=2.1, gt=0, description="standard deviation of a column of scores")
    with_noise: bool = Field(
        default=False, description="whether the standard deviation is that of an observation, not of the function"
    )


class Process:
    """The posterior on plain rows [n, columns] with targets [n] of mean 0; `groups` are the columns' blocks.

    Columns are standardised by the rows of `frame`, by those observed where it is None.
    """

    def __init__(
        self,
        rows: Floats,
        targets: Floats,
        groups: Sequence[str],
        config: GaussianProcessConfig,
        frame: Floats | None = None,
    ) -> None:
        self._scaling = Scaling(rows if frame is None else frame, groups, config.norm, config.weight)
        self._rows = self._scaling(rows)
        distances = squared_distances(self._rows, self._rows)
        chosen = numpy.arange(len(rows))
        if len(rows) > SELECTED:
            chosen = numpy.linspace(0, len(rows) - 1, SELECTED).astype(int)
        part = distances[numpy.ix_(chosen, chosen)]
        scales, noises = numpy.array(config.length_scales), numpy.array(config.noises)
        kernels = numpy.exp(-part / (2 * scales[:, None, None] ** 2))[:, None]
        kernels = kernels + noises[:, None, None] * numpy.eye(len(chosen))
        likelihoods = _likelihoods(kernels.reshape(-1, len(chosen), len(chosen)), targets[chosen])
        scale, noise = divmod(int(numpy.argmax(likelihoods)), len(noises))
        self.length_scale, self.noise = float(scales[scale]), float(noises[noise])
        kernel = numpy.exp(-distances / (2 * self.length_scale**2)) + self.noise * numpy.eye(len(rows))
        self._root = numpy.linalg.inv(numpy.linalg.cholesky(kernel))
        whitened = self._root @ targets
        self._weights = self._root.T @ whitened
        self.amplitude = max(float(whitened @ whitened) / len(targets), 1e-12)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and variance [n] of the function."""
        kernel = numpy.exp(-squared_distances(self._scaling(rows), self._rows) / (2 * self.length_scale**2))
        explained = ((kernel @ self._root.T) ** 2).sum(axis=1)
        return kernel @ self._weights, self.amplitude * numpy.maximum(1 - explained, 0)


class GaussianProcess:
    """The process on normal scores of ranks; predictions are mapped back to values."""

    Config: ClassVar[type[GaussianProcessConfig]] = GaussianProcessConfig

    def __init__(self, problem: Problem, config: GaussianProcessConfig) -> None:
        self._config = config
        self._rows = Rows(problem, config)
        self._fitted: tuple[Observations, Process] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        seen = self._rows.observe(archs, values)
        process = Process(seen.rows, seen.targets, self._rows.groups, self._config, self._rows.frame)
        self._fitted = seen, process

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        seen, process = fitted(self._fitted, "the Gaussian process")
        mean, variance = process.predict(self._rows.encode(archs))
        if self._config.with_noise:
            variance = variance + process.amplitude * process.noise
        return seen.back(mean, numpy.sqrt(variance))


def squared_distances(one: Floats, other: Floats) -> Floats:
    """[n, columns] and [m, columns] to [n, m]."""
    found = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return numpy.asarray(numpy.maximum(found, 0))


def _likelihoods(kernels: Floats, targets: Floats) -> Floats:
    """Log marginal likelihood [k] of the targets [n] under kernels [k, n, n] of unknown amplitude, up to a constant."""
    roots = numpy.linalg.cholesky(kernels)
    whitened = numpy.linalg.solve(roots, numpy.broadcast_to(targets[:, None], (len(kernels), len(targets), 1)))
    power = numpy.maximum((whitened[..., 0] ** 2).mean(axis=1), 1e-12)
    logs = numpy.log(numpy.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    return numpy.asarray(-0.5 * len(targets) * numpy.log(power) - logs)
