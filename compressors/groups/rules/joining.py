"""Concatenations, and what takes a value apart again."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np

from compressors.groups.rules.call import Call, equal_positions, unknown
from compressors.groups.rules.elementwise import all_zero, any_zero, joined, nowhere_zero
from compressors.groups.walk import ELASTIC, Axis, Dim, Value, Walk


def concatenated(walk: Walk, call: Call) -> Value:
    """Positions one after another along a dimension, position by position along the others."""
    values = [value for value in call["tensors"] if value.shape != (0,)]
    along = (call["dim"] or 0) % len(call.shape)
    parts = [value.dims[along] for value in values]
    joint: list[Dim] = []
    for place in range(len(call.shape)):
        held = [(value.dims[place], value.parameter) for value in values]
        zeros = [dim.zero for dim, _ in held if isinstance(dim, Axis)]
        joint.append(
            None if place == along or call.shape[place] == 1 else walk.joint(held, all_zero(zeros) if zeros else None)
        )
    if any(isinstance(part, Axis) for part in parts):
        text = "is concatenated with something whose size stays"
        axes = [
            part
            if isinstance(part, Axis)
            else Axis(walk.constant(value.shape[along], text), np.full(value.shape[along], value.zeros))
            for part, value in zip(parts, values, strict=True)
        ]
        joint[along] = Axis(np.concatenate([one.ids for one in axes]), np.concatenate([one.zero for one in axes]))
    return Value(call.shape, tuple(joint), all(value.parameter for value in values))


def block_diagonal(walk: Walk, call: Call) -> Value:
    """Matrices along a diagonal: rows one after another, and columns; 0 elsewhere."""
    values = [value for value in call["tensors"] if len(value.shape) == 2]
    if len(values) != len(call["tensors"]):
        return unknown(walk, call)  # type: ignore[return-value]
    dims = []
    for place in range(2):
        axes = [
            value.axis(place)
            or Axis(
                walk.constant(value.shape[place], "is part of a diagonal"), np.full(value.shape[place], value.zeros)
            )
            for value in values
        ]
        dims.append(Axis(np.concatenate([one.ids for one in axes]), np.concatenate([one.zero for one in axes])))
    return Value(call.shape, tuple(dims), all(value.parameter for value in values))


def stacked(walk: Walk, call: Call) -> Value:
    values = list(call["tensors"])
    made = joined(walk, values, values[0].shape, all_zero)
    dim = (call["dim"] or 0) % len(call.shape)
    return replace(made, shape=call.shape, dims=(*made.dims[:dim], None, *made.dims[dim:]))


def equal_parts(walk: Walk, x: Value, dim: int, count: int) -> list[Value]:
    """Equal parts of a dimension, whose same positions go together."""
    dim %= len(x.shape)
    size = x.shape[dim] // count
    equal_positions(walk, x.dims[dim], count)
    return [_cut(x, dim, start, start + size) for start in range(0, size * count, size)]


def _cut(x: Value, dim: int, start: int, stop: int) -> Value:
    axis = x.axis(dim)
    cut: Dim = x.dims[dim] if axis is None else Axis(axis.ids[start:stop], axis.zero[start:stop])
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    return replace(x, shape=shape, dims=(*x.dims[:dim], cut if stop - start > 1 else None, *x.dims[dim + 1 :]))


def parted(walk: Walk, call: Call) -> list[Value]:
    """`chunk` and `split`: equal parts, whose same positions go together; the places of unequal ones are fixed."""
    x, dim = call["self"], (call["dim"] or 0) % len(call["self"].shape)
    sizes = [shape[dim] for shape in call.shapes]
    if len(set(sizes)) == 1:
        return equal_parts(walk, x, dim, len(sizes))
    walk.fix(x.dims[dim], "is split into unequal parts")
    ends = list(accumulate(sizes))
    return [_cut(x, dim, end - size, end) for end, size in zip(ends, sizes, strict=True)]


def sliced(walk: Walk, call: Call) -> Value:
    """A part that begins at a multiple of its size is one of equal parts."""
    x, dim = call["self"], (call["dim"] or 0) % len(call["self"].shape)
    size = x.shape[dim]
    start = call["start"] or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    part = call.shape[dim]
    if x.axis(dim) is None or part == size:
        dims = x.dims if part == size or x.dims[dim] is ELASTIC else (*x.dims[:dim], None, *x.dims[dim + 1 :])
        return replace(x, shape=call.shape, dims=dims)
    if call["step"] not in (None, 1) or not part or size % part or start % part:
        walk.fix(x.dims[dim], "is cut at a place that does not follow the width")
        return replace(x, shape=call.shape, dims=(*x.dims[:dim], None, *x.dims[dim + 1 :]))
    return equal_parts(walk, x, dim, size // part)[start // part]


def selected(walk: Walk, call: Call) -> Value:
    """One position of a dimension."""
    x, dim = call["self"], call["dim"] % len(call["self"].shape)
    walk.fix(x.dims[dim], "is read at one position")
    return replace(x, shape=call.shape, dims=(*x.dims[:dim], *x.dims[dim + 1 :]))


def unbound(walk: Walk, call: Call) -> list[Value]:
    x, dim = call["self"], (call["dim"] or 0) % len(call["self"].shape)
    walk.fix(x.dims[dim], "is read at one position")
    return [replace(x, shape=shape, dims=(*x.dims[:dim], *x.dims[dim + 1 :])) for shape in call.shapes]


def gated(walk: Walk, call: Call) -> Value:
    """`glu`: the first half of a dimension times the sigmoid of the second."""
    one, other = equal_parts(walk, call["self"], call["dim"] if call["dim"] is not None else -1, 2)
    return joined(walk, [one, nowhere_zero(other)], call.shape, any_zero)
