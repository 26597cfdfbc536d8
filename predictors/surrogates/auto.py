"""The default surrogate: proxies for want of observations, then a Gaussian process and boosted trees together.

With fewer than 8 observations the mean rank of the proxies orders the architectures (White et al., "How Powerful are
Performance Predictors in Neural Architecture Search?", NeurIPS 2021, find it the best there). From 8 on the mean of a
Gaussian process and bags of boosted trees takes over: the process is the better of the two below 50 observations, the
trees above 100. The proxies' mean rank then still counts as much as 8 observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from predictors.encodings import PROXY_BLOCK, scores
from predictors.surrogate import Problem
from predictors.surrogates.boosted_trees import Bags, BoostedTreesConfig
from predictors.surrogates.gp import GaussianProcessConfig, Process
from predictors.surrogates.rows import Observations, Rows, RowsConfig, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

PROXIES = ("naswot", "logsynflow", "linear_regions", "params")


class AutoConfig(RowsConfig):
    """The proxies are those that the study's scores have, unless they are named."""

    proxies: tuple[str, ...] = Field(
        default=PROXIES, description="proxies whose ranks are columns too; of the default, those that the study has"
    )
    least: int = Field(default=8, ge=2, description="observations from which models are fitted")
    prior: float = Field(default=8.0, ge=0, description="how many observations the proxies' mean rank counts as")


class Prior:
    """The mean rank of the proxies as a guess of a target, relative to what was observed: rows hold ranks [n, proxies].

    Its slope is that of the observations, shrunk to 1 as by 8 of them, and never negative.
    """

    def __init__(self, ranks: Floats, targets: Floats) -> None:
        found = _normal(ranks)
        self._middle = float(found.mean())
        centred = found - self._middle
        self.slope = max(float(centred @ targets + 8) / float(centred @ centred + 8), 0.0)

    def __call__(self, ranks: Floats) -> Floats:
        return self.slope * (_normal(ranks) - self._middle)


class Models:
    """A Gaussian process and boosted trees, which count the same."""

    def __init__(self, seen: Observations, groups: Sequence[str], seed: int) -> None:
        self._process = Process(seen.rows, seen.targets, groups, GaussianProcessConfig())
        self._trees = Bags(seen.rows, seen.targets, BoostedTreesConfig(), seed)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and variance [n] of a target, with the noise of observing it."""
        process, trees = self._process.predict(rows), self._trees.predict(rows)
        noise = self._process.amplitude * self._process.noise
        return (process[0] + trees[0]) / 2, (process[1] + noise + trees[1]) / 2


class Auto:
    """The mixture on normal scores of ranks; predictions are mapped back to values."""

    Config: ClassVar[type[AutoConfig]] = AutoConfig

    def __init__(self, problem: Problem, config: AutoConfig) -> None:
        self._config, self._seed = config, problem.seed
        proxies = tuple(name for name in config.proxies if config.proxies != PROXIES or _has(problem, name))
        self._rows = Rows(problem, config.model_copy(update={"proxies": proxies}))
        self._ranks = numpy.array([group == PROXY_BLOCK for group in self._rows.groups], dtype=bool)
        self._fitted: tuple[Observations, Prior | None, Models | None] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        seen = self._rows.observe(archs, values)
        prior = Prior(seen.rows[:, self._ranks], seen.targets) if self._ranks.any() else None
        enough = len(seen.rows) >= self._config.least
        self._fitted = seen, prior, Models(seen, self._rows.groups, self._seed) if enough else None

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        seen, prior, models = fitted(self._fitted, "the surrogate 'auto'")
        rows = self._rows.encode(archs)
        # Without models a target is a normal score, and no more is known.
        mean, variance = models.predict(rows) if models else (numpy.zeros(len(rows)), numpy.ones(len(rows)))
        if prior is not None:
            weight = self._config.prior / (len(seen.rows) + self._config.prior) if models else 1.0
            mean = (1 - weight) * mean + weight * prior(rows[:, self._ranks])
        return seen.back(mean, numpy.sqrt(variance))


def _normal(ranks: Floats) -> Floats:
    """Normal quantiles of mean ranks; those of the reference reach from 0 to 1."""
    from scipy.special import ndtri

    return numpy.asarray(ndtri(numpy.clip(ranks.mean(axis=1), 0.01, 0.99)))


def _has(problem: Problem, name: str) -> bool:
    """Whether the problem's scores include this proxy."""
    if problem.score is None:
        return False
    try:
        scores(problem, name, ())
    except UsageError:
        return False
    return True
