"""Transfer: what was learned on another study, corrected by what is observed on this one.

A target is a s + b + g: s is the prediction of the source, a and b are a line, g a Gaussian process of the residuals
(autoregressive co-kriging, Kennedy and O'Hagan, "Predicting the Output from a Complex Computer Code When Fast
Approximations Are Available", Biometrika 2000, equation 1, with the source as it is).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy
from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import generator
from predictors.surrogate import Problem, Surrogate
from predictors.surrogates.auto import Auto, AutoConfig
from predictors.surrogates.gp import GaussianProcessConfig, Process
from predictors.surrogates.rows import Observations, Rows, fitted
from predictors.targets import NormalScores, checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

DRAWN = 200
"""Architectures that show how the source's predictions are distributed."""


class TransferConfig(GaussianProcessConfig):
    """The process is that of the residuals; when the source is of no use another surrogate takes its place."""

    with_noise: bool = Field(
        default=True, description="whether the standard deviation is that of an observation, not of the function"
    )
    shared: int = Field(
        default=10, ge=5, description="observations, the first ones, that say how far the source agrees"
    )
    agreement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="slope of their normal scores over its own; it is dropped where that is lower by a standard error",
    )


class Line:
    """a s + b through guesses s and targets of mean 0; a is drawn towards 1, as if by two more observations.

    `error` is the standard error of the slope a, for targets of unit variance.
    """

    def __init__(self, guesses: Floats, targets: Floats) -> None:
        self._middle = float(guesses.mean())
        centred = guesses - self._middle
        evidence = float(centred @ centred) + 2
        self.slope = max((float(centred @ targets) + 2) / evidence, 0.0)
        self.error = evidence**-0.5

    def __call__(self, guesses: Floats) -> Floats:
        return self.slope * (guesses - self._middle)


class Transfer:
    """A surrogate that begins with what `source`, fitted already, predicts.

    Whether the source agrees with the first observations is their slope over its predictions, within its error, not
    their correlation: a search that begins with what the source likes best observes candidates among which it hardly
    distinguishes, and that says little against it.

    Sources may have values of any scale: only the order of their predictions counts. `used` says, once fitted, whether
    the source agreed with the first observations; with fewer than 5 it is trusted. When it does not agree, `alone` (by
    default `auto`) learns without it.
    """

    Config: ClassVar[type[TransferConfig]] = TransferConfig

    def __init__(
        self,
        problem: Problem,
        source: Surrogate,
        config: TransferConfig | None = None,
        alone: Surrogate | None = None,
    ) -> None:
        from scipy.special import ndtri

        self._config = config or TransferConfig()
        self._source = source
        self._rows = Rows(problem, self._config)
        self._alone = alone or Auto(problem, AutoConfig())
        rng = generator(problem.seed, "source")
        drawn = [moves.sample(problem.space, rng) for _ in range(DRAWN)]
        predicted, first = numpy.unique(numpy.sort(source.predict(drawn)[0]), return_index=True)
        self._quantiles = NormalScores(predicted, ndtri((first + 0.5) / DRAWN))
        self.used = True
        self._fitted: tuple[Observations, Line, Process] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        self.used = True
        checked(archs, values)
        if len(archs) >= 5:
            first = slice(0, self._config.shared)
            line = Line(self._guess(archs[first]), NormalScores.of(numpy.asarray(values[first]))[1])
            self.used = line.slope + line.error >= self._config.agreement
        if not self.used:
            self._alone.fit(archs, values)
            return
        seen = self._rows.observe(archs, values)
        guesses = self._guess(seen.archs)
        line = Line(guesses, seen.targets)
        residuals = seen.targets - line(guesses)
        process = Process(seen.rows, residuals, self._rows.groups, self._config, self._rows.frame)
        self._fitted = seen, line, process

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        if not self.used:
            return self._alone.predict(archs)
        seen, line, process = fitted(self._fitted, "the transfer from another study")
        mean, variance = process.predict(self._rows.encode(archs))
        if self._config.with_noise:
            variance = variance + process.amplitude * process.noise
        return seen.back(mean + line(self._guess(archs)), numpy.sqrt(variance))

    def _guess(self, archs: Sequence[Architecture]) -> Floats:
        """The normal quantile of the source's prediction among those of the drawn architectures; beyond them it goes
        on as a line, because a search is about those that are better."""
        return self._quantiles.back(self._source.predict(archs)[0])
