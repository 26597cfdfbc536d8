"""Convolutions, with groups: equal positions of all groups go together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compressors.groups.rules.call import Call, equal_positions, stay, unknown
from compressors.groups.rules.elementwise import along
from compressors.groups.walk import Axis, Dim, Value, Walk


def convolution(walk: Walk, call: Call) -> Value:
    """`[n, in, ...] * [out, in / groups, ...]`: of groups the same positions go together; where a group has one input,
    the group goes with it."""
    x, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"] or 1
    if len(x.shape) < len(weight.shape):
        return unknown(walk, call)  # type: ignore[return-value]
    rows, columns, read = weight.dims[0], weight.dims[1], x.dims[1]
    walk.leave(weight.dims[2:])
    if groups > 1:
        if weight.shape[1] == 1:
            _follow(walk, read, rows, weight.shape[0] // groups)
        else:
            read = equal_positions(walk, read, groups)
            rows = equal_positions(walk, rows, groups)
            _each(walk, x, weight, read, columns, groups)
    elif x.shape[1] > 1:
        walk.contract(read, x, columns, weight)
    width = call.shape[1]
    if groups > 1 and weight.shape[1] == 1:
        walk.count(math.prod(call.shape) // width * math.prod(weight.shape[2:]), [(width, rows)])
    else:
        outside = math.prod(call.shape) // width * math.prod(weight.shape[2:])
        walk.count(outside, [(width, rows), (weight.shape[1], columns)])
    made = Value(call.shape, (x.dims[0], rows if width > 1 else None, *(None,) * (len(call.shape) - 2)))
    stay(walk, x.dims[2:], "is moved over by a window")
    return made if bias is None or width == 1 else along(walk, made, 1, [bias], _both(rows, bias.dims[0]))


def transposed_convolution(walk: Walk, call: Call) -> Value:
    """`[n, in, ...] * [in, out / groups, ...]`."""
    x, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"] or 1
    rows, columns, read = weight.dims[1], weight.dims[0], x.dims[1]
    walk.leave(weight.dims[2:])
    width = call.shape[1]
    if groups > 1:
        walk.fix(read, "is read by groups of a transposed convolution")
        walk.fix(columns, "are groups of a transposed convolution")
        walk.fix(rows, "are groups of a transposed convolution")
        rows = None
        _fixed_vector(walk, bias)
    elif x.shape[1] > 1:
        walk.contract(read, x, columns, weight)
    positions = math.prod(x.shape) // x.shape[1] * math.prod(weight.shape[2:])
    walk.count(positions, [(weight.shape[1], rows), (x.shape[1], read)])
    made = Value(call.shape, (x.dims[0], rows if width > 1 else None, *(None,) * (len(call.shape) - 2)))
    stay(walk, x.dims[2:], "is moved over by a window")
    if bias is None or width == 1 or groups > 1:
        return made
    return along(walk, made, 1, [bias], _both(rows, bias.dims[0]))


def _fixed_vector(walk: Walk, vector: Value | None) -> None:
    if vector is not None:
        walk.fix(vector.dims[0], "goes with something whose size stays")


def _both(one: Dim, other: Dim) -> Any:
    return one.zero & other.zero if isinstance(one, Axis) and isinstance(other, Axis) else None


def _each(walk: Walk, x: Value, weight: Value, read: Dim, columns: Dim, groups: int) -> None:
    """All groups of x read the same columns."""
    if not isinstance(read, Axis):
        walk.contract(read, x, columns, weight)
        return
    size = weight.shape[1]
    for start in range(0, size * groups, size):
        part = slice(start, start + size)
        walk.contract(Axis(read.ids[part], read.zero[part]), x, columns, weight)


def _follow(walk: Walk, read: Dim, rows: Dim, times: int) -> None:
    """Every input has `times` outputs of its own, which go with it; where its size stays, so do they."""
    if not isinstance(rows, Axis):
        walk.fix(read, "is combined with something whose size stays")
    elif isinstance(read, Axis):
        walk.unite(np.repeat(read.ids, times), rows.ids)
    else:
        walk.fix(rows, "is combined with something whose size stays")
