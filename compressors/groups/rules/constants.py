"""Values that depend on no input, and messages of graph networks."""

from __future__ import annotations

import numpy as np

from compressors.groups.rules.call import Call, plain
from compressors.groups.walk import ELASTIC, Axis, Value, Walk


def constant(walk: Walk, call: Call, zeros: bool) -> Value:
    return Value(call.shape, tuple(ELASTIC if size > 1 else None for size in call.shape), zeros=zeros)


def filled_like(walk: Walk, call: Call, zeros: bool) -> Value:
    """A constant of the size of another value, which has its widths."""
    x = call["self"]
    dims = tuple(Axis(dim.ids, np.full(len(dim.ids), zeros)) if isinstance(dim, Axis) else dim for dim in x.dims)
    return Value(call.shape, dims, zeros=zeros)


def shaped(walk: Walk, call: Call) -> Value:
    """Positions that are none of parameters: `arange`, `eye`."""
    return plain(call.shape)


def full(walk: Walk, call: Call) -> Value:
    """`full`, `new_full`, `full_like`."""
    zeros = isinstance(call["fill_value"], int | float) and call["fill_value"] == 0
    like = isinstance(call["self"], Value) and call["size"] is None
    return filled_like(walk, call, zeros) if like else constant(walk, call, zeros)


def message(walk: Walk, call: Call) -> Value:
    """What a layer of message passing sends along edges: one multiply-accumulate per feature."""
    x: Value = call["x"]
    walk.count(1, list(zip(x.shape, x.dims, strict=True)))
    return x
