"""Bags of gradient-boosted trees (Friedman, "Stochastic Gradient Boosting", 2002).

Every bag leaves out a part of the observations, each of which is left out once; how far its predictions of those are
off says how much the disagreement of the bags is worth as a standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.seeds import derive, generator
from predictors.surrogate import Problem
from predictors.surrogates.rows import Observations, Rows, RowsConfig, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

LEAST_LEFT_OUT = 10
"""Below this many observations every bag has all of them."""


class BoostedTreesConfig(RowsConfig):
    """Shallow trees that learn slowly, each from a part of the observations and columns."""

    bags: int = Field(default=5, ge=2, le=100, description="models, each without a part of the observations")
    rounds: int = Field(default=150, ge=1, le=10_000, description="trees of a bag")
    learning_rate: float = Field(default=0.08, gt=0, le=1, description="weight of each tree")
    depth: int = Field(default=3, ge=1, le=20, description="of a tree")
    leaf: int = Field(default=3, ge=1, description="observations in a leaf, at least")
    subsample: float = Field(default=0.8, gt=0, le=1, description="share of the observations that a tree sees")
    features: float = Field(default=0.3, gt=0, le=1, description="share of the columns that a split may use")


class Bags:
    """The bags on plain rows [n, columns] with targets [n]."""

    def __init__(self, rows: Floats, targets: Floats, config: BoostedTreesConfig, seed: int) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        count = len(rows)
        # Equal rows are left out together: the others would give the value away.
        _, same = numpy.unique(rows, axis=0, return_inverse=True)
        same = same.reshape(-1)
        turn = generator(seed, "bags").permutation(int(same.max()) + 1)[same] % config.bags
        split = int(same.max()) + 1 >= max(LEAST_LEFT_OUT, config.bags)
        self._models = []
        left_out = numpy.zeros(count)
        for bag in range(config.bags):
            learn = turn != bag if split else numpy.ones(count, dtype=bool)
            model = GradientBoostingRegressor(
                n_estimators=config.rounds,
                learning_rate=config.learning_rate,
                max_depth=config.depth,
                min_samples_leaf=config.leaf,
                subsample=config.subsample,
                max_features=config.features,
                random_state=derive(seed, "bag", bag) % 2**32,
            )
            model.fit(rows[learn], targets[learn])
            self._models.append(model)
            if split:
                left_out[~learn] = model.predict(rows[~learn])
        # Without left out observations a target is as uncertain as before it was learned.
        error = float(((left_out - targets) ** 2).mean())
        inside = float(self._predict(rows).var(axis=0).mean())
        self.floor = max(error - inside, 0.1 * error)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and variance [n]."""
        if not len(rows):
            return numpy.zeros(0), numpy.zeros(0)
        found = self._predict(rows)
        return found.mean(axis=0), found.var(axis=0) + self.floor

    def _predict(self, rows: Floats) -> Floats:
        return numpy.stack([model.predict(rows) for model in self._models])


class BoostedTrees:
    """The bags on normal scores of ranks; predictions are mapped back to values."""

    Config: ClassVar[type[BoostedTreesConfig]] = BoostedTreesConfig

    def __init__(self, problem: Problem, config: BoostedTreesConfig) -> None:
        self._config, self._seed = config, problem.seed
        self._rows = Rows(problem, config)
        self._fitted: tuple[Observations, Bags] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        seen = self._rows.observe(archs, values)
        self._fitted = seen, Bags(seen.rows, seen.targets, self._config, self._seed)

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        seen, bags = fitted(self._fitted, "the ensemble of boosted trees")
        mean, variance = bags.predict(self._rows.encode(archs))
        return seen.back(mean, numpy.sqrt(variance))
