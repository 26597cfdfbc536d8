"""Random forest (Breiman 2001) with the settings of NAS-Bench-301 (Zela et al., ICLR 2022); the standard deviation is
that of the trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.seeds import derive
from predictors.surrogate import Problem
from predictors.surrogates.rows import Observations, Rows, RowsConfig, fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]


class RandomForestConfig(RowsConfig):
    """Each tree sees all observations; what differs is the columns that each split may use."""

    trees: int = Field(default=116, ge=2, le=10_000, description="how many")
    features: float = Field(default=0.17, gt=0, le=1, description="share of the columns that a split may use")
    leaf: int = Field(default=2, ge=1, description="observations in a leaf, at least")


class RandomForest:
    """The forest on normal scores of ranks; predictions are mapped back to values."""

    Config: ClassVar[type[RandomForestConfig]] = RandomForestConfig

    def __init__(self, problem: Problem, config: RandomForestConfig) -> None:
        self._config, self._seed = config, problem.seed
        self._rows = Rows(problem, config)
        self._fitted: tuple[Observations, Any] | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        from sklearn.ensemble import RandomForestRegressor

        seen = self._rows.observe(archs, values)
        forest = RandomForestRegressor(
            self._config.trees,
            max_features=self._config.features,
            min_samples_leaf=self._config.leaf,
            bootstrap=False,
            random_state=derive(self._seed, "forest") % 2**32,
        )
        forest.fit(seen.rows, seen.targets)
        self._fitted = seen, forest

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        seen, forest = fitted(self._fitted, "the random forest")
        if not archs:
            return numpy.zeros(0), numpy.zeros(0)
        rows = self._rows.encode(archs).astype(numpy.float32)
        found = numpy.stack([tree.predict(rows, check_input=False) for tree in forest.estimators_])
        return seen.back(found.mean(axis=0), found.std(axis=0))
