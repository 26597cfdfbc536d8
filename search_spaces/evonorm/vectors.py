"""Layers on numpy arrays: what is known of one without building it. Its bits depend on no number of threads: nothing
here is a matrix product of BLAS."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy
from numpy.typing import NDArray

from search_spaces.evonorm.graph import V0, V1, ZERO, Graph, X, evaluate
from search_spaces.evonorm.primitives import EPS, Library, apply

Array = NDArray[numpy.float64]


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    # Much of what `numpy.mean` takes on small arrays is checks.
    return numpy.add.reduce(x, axes, keepdims=True) / prod(x.shape[axis] for axis in axes)


def _variance(x: Any, axes: tuple[int, ...]) -> Any:
    centred = x - _mean(x, axes)
    return _mean(centred * centred, axes)


NUMPY = Library(numpy, _mean, _variance, lambda x: 1 / (1 + numpy.exp(-x)))


def computed(graph: Graph, x: Array, v0: Array, v1: Array) -> Array:
    """The output of a graph without dead nodes, before the affine map, with moments of the batch as in training.

    `x` is `[..., n, g, k, p]`, `v0` and `v1` are `[1, g, k, 1]`; so is the output, wherever it is the same along a
    dimension perhaps with 1 there.
    """
    initial: Mapping[int, Any] = {X: x, ZERO: numpy.zeros((1, 1, 1, 1)), V0: v0, V1: v1}
    with numpy.errstate(all="ignore"):
        found: Array = evaluate(graph, initial, lambda number, op, value, other: apply(NUMPY, op, value, other, EPS))
    return found
