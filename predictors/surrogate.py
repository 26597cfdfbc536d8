"""The contract of a surrogate: a model of a metric, fitted to evaluated architectures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.space import SearchSpace

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

Score = Callable[[str, Sequence[Architecture]], Sequence[float]]
"""`score(predictor, archs)`: one number per architecture, higher is better, minus infinity is the worst."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a surrogate knows before it is fitted.

    `score` gives proxy scores; None: there are none. `reference` are architectures that are scored anyway: what is
    unusual about a score is judged among them, where there are any.
    """

    space: SearchSpace
    seed: int = 0
    score: Score | None = None
    reference: tuple[Architecture, ...] = ()


class Surrogate(Protocol):
    """A surrogate model, made as `Surrogate(problem, config)`; the same seed and data give the same model.

    Raises UsageError, when made, for a problem that it cannot handle.
    """

    Config: ClassVar[type[BaseConfig]]

    def __init__(self, problem: Problem, config: Any) -> None: ...

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        """Learn from scratch: what was fitted before is forgotten. `values` [n], higher is better, all finite.

        Raises UsageError for fewer than two architectures, for another number of values, or for values that are not
        finite. Constant values are learned as they are: mean is that constant.
        """
        ...

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean [n] and standard deviation [n] (never negative) of each value, in the units of the values."""
        ...
