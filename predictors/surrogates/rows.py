"""What the surrogates on encoded rows share: their settings, checked observations, standardised columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from predictors.encodings import DEFAULT, PROXY_BLOCK, Encoder, scores
from predictors.surrogate import Problem
from predictors.targets import NormalScores, checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

SCORES = (PROXY_BLOCK, "costs")
"""Blocks that measure the network instead of describing it."""


T = TypeVar("T")


def fitted(found: T | None, what: str) -> T:
    """What `fit` left. Raises UsageError where it was not called."""
    if found is None:
        raise UsageError(f"{what} has not been fitted")
    return found


class RowsConfig(BaseConfig):
    """How architectures become rows."""

    blocks: tuple[str, ...] = Field(
        default=DEFAULT, description="encodings of the architecture (predictors/encodings.py)"
    )
    proxies: tuple[str, ...] = Field(default=(), description="proxies whose ranks are columns too")
    share: float = Field(
        default=0.0, ge=0, lt=1, description="share of the value itself in what is learned, instead of its rank"
    )


@dataclass(frozen=True)
class Observations:
    """Rows [n, columns] and normal scores [n] of what was observed, and the way back to the values' units."""

    archs: Sequence[Architecture]
    rows: Floats
    targets: Floats
    scores: NormalScores

    def back(self, mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
        return self.scores.back(mean), self.scores.spread(mean, deviation)


class Rows:
    """Encodes what a surrogate is given. Raises UsageError for an encoding that the problem does not have."""

    def __init__(self, problem: Problem, config: RowsConfig) -> None:
        self._share = config.share
        self._reference = problem.reference
        self._encoder = Encoder(problem, config.blocks, config.proxies)
        for name in (*config.proxies, *(("params", "macs") if "costs" in config.blocks else ())):
            scores(problem, name, ())  # says now if there is no such score
        self.encode = self._encoder.encode
        self.names, self.groups = self._encoder.names, self._encoder.groups

    @cached_property
    def frame(self) -> Floats | None:
        """The rows by which all are standardised: those of the reference architectures; None: what is observed."""
        return self.encode(self._reference) if len(self._reference) > 1 else None

    def observe(self, archs: Sequence[Architecture], values: Sequence[float]) -> Observations:
        """Raises UsageError as `Surrogate.fit` does."""
        ordered, numbers = checked(archs, values)
        found, targets = NormalScores.of(numbers, self._share)
        return Observations(ordered, self.encode(ordered), targets, found)


class Scaling:
    """Columns standardised by `rows`, their frame; those that are constant there count nothing.

    Every block of the architecture gets the same share of the squared norm `norm` ** 2 that they have together, on
    average over the frame; a column of scores has standard deviation `weight`.
    """

    def __init__(self, rows: Floats, groups: Sequence[str], norm: float, weight: float) -> None:
        self._mean = rows.mean(axis=0)
        deviation = rows.std(axis=0)
        varies = deviation > 1e-9
        names = numpy.array(groups)
        wanted = numpy.zeros(len(names))
        blocks = [name for name in dict.fromkeys(groups) if name not in SCORES and varies[names == name].any()]
        for name in blocks:
            here = (names == name) & varies
            wanted[here] = norm / numpy.sqrt(here.sum() * len(blocks))
        wanted[numpy.isin(names, SCORES) & varies] = weight
        self._factor = numpy.divide(wanted, deviation, out=numpy.zeros(len(names)), where=varies)

    def __call__(self, rows: Floats) -> Floats:
        return (rows - self._mean) * self._factor
