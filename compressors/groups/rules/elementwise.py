"""Operators that compute every entry on its own: what is 0 where its input is, sums, products, choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compressors.groups.rules.call import Call
from compressors.groups.walk import Axis, Dim, Value, Walk


def same(walk: Walk, call: Call) -> Value:
    """A function f of every element, f(0) = 0."""
    first: Value = call.values[0]
    return replace(first, shape=call.shape)


def nowhere_zero(value: Value) -> Value:
    """The same positions, none of which is 0 where the unit is."""
    dims = tuple(Axis(dim.ids, np.zeros_like(dim.zero)) if isinstance(dim, Axis) else dim for dim in value.dims)
    return replace(value, dims=dims, zeros=False)


def shifted(walk: Walk, call: Call) -> Value:
    """A function of every element with f(0) != 0."""
    return nowhere_zero(same(walk, call))


def powered(walk: Walk, call: Call) -> Value:
    exponent = call["exponent"]
    positive = isinstance(exponent, int | float) and exponent > 0
    return same(walk, call) if positive else joined(walk, call.values, call.shape, never_zero)


def clamped(walk: Walk, call: Call) -> Value:
    low, high = (call[name] for name in ("min", "max"))
    numbers = all(one is None or isinstance(one, int | float) for one in (low, high))
    holds = numbers and (low is None or low <= 0) and (high is None or high >= 0)
    return same(walk, call) if holds else joined(walk, call.values, call.shape, never_zero)


def filled(walk: Walk, call: Call) -> Value:
    """`value` where a mask says so."""
    keeps = call["value"] == 0
    return joined(walk, [call["self"], call["mask"]], call.shape, first_zero if keeps else never_zero)


def all_zero(zeros: list[Any]) -> Any:
    return np.logical_and.reduce(zeros)


def any_zero(zeros: list[Any]) -> Any:
    return np.logical_or.reduce(zeros)


def first_zero(zeros: list[Any]) -> Any:
    return zeros[0]


def never_zero(zeros: list[Any]) -> Any:
    return np.zeros_like(np.logical_and.reduce(zeros))


def joined(walk: Walk, values: Sequence[Value], shape: Sequence[int], zero: Callable[[list[Any]], Any]) -> Value:
    """Values that are combined element by element; `zero`: where the result is 0 by where each of them is."""
    dims: list[Dim] = []
    for place in range(-len(shape), 0):
        here = [len(value.shape) >= -place and value.shape[place] == shape[place] for value in values]
        if shape[place] == 1:
            dims.append(None)
            continue
        axes = [value.axis(place) if whole else None for value, whole in zip(values, here, strict=True)]
        known = [
            np.full(shape[place], value.zeros) if axis is None else axis.zero
            for value, axis in zip(values, axes, strict=True)
        ]
        held = [(value.dims[place], value.parameter) for value, whole in zip(values, here, strict=True) if whole]
        dims.append(walk.joint(held, zero(known)))
    zeros = bool(zero([np.bool_(value.zeros) for value in values]))
    return Value(tuple(shape), tuple(dims), all(value.parameter for value in values), zeros)


def added(walk: Walk, call: Call) -> Value:
    """A sum is 0 where all its terms are; so are a maximum and what `where` chooses."""
    number = isinstance(call["other"], int | float) and call["other"] != 0
    return joined(walk, call.values, call.shape, never_zero if number else all_zero)


def multiplied(walk: Walk, call: Call) -> Value:
    """A product is 0 where one of its factors is."""
    return joined(walk, call.values, call.shape, any_zero)


def divided(walk: Walk, call: Call) -> Value:
    values = call.values
    if not isinstance(call["self"], Value):
        return joined(walk, values, call.shape, never_zero)
    for dim in values[1].dims if len(values) > 1 else ():
        if isinstance(dim, Axis):
            walk.blur(dim.ids[dim.zero], "divides by a value that is 0 where the unit is")
    return joined(walk, values, call.shape, first_zero)


def compared(walk: Walk, call: Call) -> Value:
    return joined(walk, call.values, call.shape, never_zero)


def chosen(walk: Walk, call: Call) -> Value:
    """`where(condition, self, other)`: 0 where both are."""
    values = call.values
    branches = 2 if isinstance(call["self"], Value) and isinstance(call["other"], Value) else 1
    number = any(isinstance(call[name], int | float) and call[name] for name in ("self", "other"))
    ordered = [*values[1:], values[0]]
    return joined(walk, ordered, call.shape, never_zero if number else (lambda zeros: all_zero(zeros[:branches])))


def scaled_shifted(walk: Walk, call: Call) -> Value:
    """`self + value * tensor1 * tensor2`, or a quotient."""
    return joined(walk, call.values, call.shape, lambda zeros: zeros[0] & (zeros[1] | zeros[2]))


def per_channel(walk: Walk, call: Call) -> Value:
    """`prelu`: a slope per channel, dimension 1."""
    x, weight = call["self"], call["weight"]
    if weight.shape[-1] == 1:
        return same(walk, call)
    return along(walk, x, 1, [weight])


def along(walk: Walk, x: Value, dim: int, vectors: Sequence[Value | None], zero: Any = None) -> Value:
    """x, with vectors that go with its dimension `dim`."""
    held = [x.dims[dim], *(vector.dims[0] for vector in vectors if vector is not None)]
    whose = [x.parameter, *(vector.parameter for vector in vectors if vector is not None)]
    dims = list(x.dims)
    before = dims[dim].zero if isinstance(dims[dim], Axis) else None  # type: ignore[union-attr]
    dims[dim] = walk.joint(list(zip(held, whose, strict=True)), before if zero is None else zero)
    return replace(x, dims=tuple(dims))


# Sums of products.
