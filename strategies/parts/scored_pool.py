"""Pools of sampled architectures that are scored once, and what follows for those that were not scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.strategy import Setting
from predictors.encodings import Encoder
from predictors.ranking import RANKINGS, ranking, ranks
from predictors.surrogate import Problem, Score
from strategies.basic.random_search import sample_new

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

SCORED = 1_000
"""Architectures that a search may score, at most, unless it is told otherwise."""

NORM = 6.0  # of an encoded architecture, on average over the pool
LENGTH = 4.5  # of the kernel
RIDGE = 0.05


def scores_of(setting: Setting, who: str, *predictors: str) -> Score:
    """The setting's scores. Raises UsageError where it has none, or none by one of these predictors."""
    if setting.score is None:
        raise UsageError(
            f"strategy: {who} asks for the scores {', '.join(predictors)}, but this search has none; give a table of "
            "scores by --scores, or data to score untrained networks on by --score-on"
        )
    for predictor in predictors:
        for name in RANKINGS[predictor].scores if predictor in RANKINGS else (predictor,):
            setting.score(name, ())  # says now if there is no such score
    return setting.score


def sampled(setting: Setting, count: int, purpose: str) -> tuple[Architecture, ...]:
    """Different candidates, sampled choice by choice; all of them where the space has less than `count`."""
    rng = generator(setting.seed, purpose)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        arch = sample_new(setting, found.__contains__, rng)
        if arch is None:
            break
        found[setting.identity(arch)] = arch
    return tuple(found.values())


class ScoredPool:
    """`size` candidates by one predictor, best first: a score such as `naswot`, or a ranking such as `vote`.

    They are sampled and scored when first needed. Raises UsageError for a setting without these scores.
    """

    def __init__(self, setting: Setting, who: str, predictor: str, size: int) -> None:
        self._setting, self._predictor, self._size = setting, predictor, size
        self._score = scores_of(setting, who, predictor)

    @cached_property
    def archs(self) -> tuple[Architecture, ...]:
        """As they were sampled."""
        return sampled(self._setting, self._size, "pool")

    @cached_property
    def best(self) -> tuple[Architecture, ...]:
        """Best first; of equals the one that was sampled first."""
        found = ranking(self._predictor, self.archs, self._score)
        return tuple(self.archs[place] for place in numpy.argsort([-value for value in found], kind="stable"))


class ProxyRanks:
    """Where architectures rank by scores among those of a pool, in (0, 1], 1 for the best: `Problem.score`.

    Of the pool's the scores are known, and no others are ever asked for: how others rank is predicted from their
    encodings by kernel ridge regression, because most proxies depend on few and simple traits of a network.
    """

    def __init__(self, setting: Setting, score: Score, names: Sequence[str], pool: Sequence[Architecture]) -> None:
        self._score, self._names, self._pool = score, tuple(names), pool
        self._encoder = Encoder(Problem(setting.space))
        self._predicted: dict[Architecture, Floats] = {}

    def __call__(self, name: str, archs: Sequence[Architecture]) -> list[float]:
        if not archs:
            return list(self._score(name, ()))
        missing = [arch for arch in dict.fromkeys(archs) if arch not in self._known and arch not in self._predicted]
        if missing:
            self._predicted.update(zip(missing, self._predict(missing), strict=True))
        column = self._names.index(name)
        return [float((self._known[arch] if arch in self._known else self._predicted[arch])[column]) for arch in archs]

    @cached_property
    def _known(self) -> dict[Architecture, Floats]:
        columns = numpy.stack([ranks(self._score(name, self._pool)) for name in self._names], axis=1)
        return dict(zip(self._pool, columns, strict=True))

    @cached_property
    def _fitted(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Mean and factor of the columns of an encoding, rows of the pool, weights, mean ranks."""
        rows = self._encoder.encode(self._pool)
        targets = numpy.stack([self._known[arch] for arch in self._pool])
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        varies = deviation > 1e-9
        factor = numpy.divide(1.0, deviation, out=numpy.zeros_like(mean), where=varies)
        factor *= NORM / numpy.sqrt(max(int(varies.sum()), 1))
        rows, centre = (rows - mean) * factor, targets.mean(axis=0)
        kernel = _kernel(rows, rows) + RIDGE * numpy.eye(len(rows))
        return mean, factor, rows, numpy.linalg.solve(kernel, targets - centre), centre

    def _predict(self, archs: Sequence[Architecture]) -> Floats:
        mean, factor, rows, weights, centre = self._fitted
        here = (self._encoder.encode(archs) - mean) * factor
        return numpy.asarray(numpy.clip(_kernel(here, rows) @ weights + centre, 0.0, 1.0))


def _kernel(one: Floats, other: Floats) -> Floats:
    distances = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return numpy.asarray(numpy.exp(-numpy.maximum(distances, 0.0) / (2 * LENGTH**2)))
