"""Sums, means and other statistics over dimensions, and pooling over places."""

from __future__ import annotations

from compressors.groups.rules.call import Call, Result, stay
from compressors.groups.rules.elementwise import nowhere_zero
from compressors.groups.walk import Axis, Dim, Value, Walk


def over(call: Call, x: Value) -> set[int]:
    dims = call["dim"]
    if dims is None or dims == []:
        return set(range(len(x.shape)))
    return {dim % len(x.shape) for dim in ([dims] if isinstance(dims, int) else dims)}


def reduced(walk: Walk, call: Call, exact: bool, text: str = "", keeps_zero: bool = True) -> Result:
    """Dimensions are summed away, or more than that; `exact`: zeros add nothing."""
    x = call["self"]
    gone = over(call, x)
    for place in gone:
        dim = x.dims[place]
        if isinstance(dim, Axis):
            if exact and not x.parameter:
                walk.blur(dim.ids[~dim.zero], "sums a value that is not 0 where the unit is")
            else:
                walk.blur(dim.ids, text or "sums over the units")
    kept: list[Dim] = [None if place in gone else dim for place, dim in enumerate(x.dims)]
    if not call["keepdim"]:
        kept = [dim for place, dim in enumerate(x.dims) if place not in gone]
    if len(call.shapes) > 1:  # maximum and where it was
        return [Value(call.shapes[0], tuple(kept), x.parameter), Value(call.shapes[1], tuple(kept))]
    made = Value(call.shape, tuple(kept), x.parameter)
    return made if keeps_zero else nowhere_zero(made)


def normed(walk: Walk, call: Call) -> Result:
    """A norm over dimensions; of order 0 or less it is none that zeros add nothing to."""
    order = call["ord"] if call["ord"] is not None else call["p"]
    return reduced(walk, call, order is None or (isinstance(order, int | float) and order > 0))


def pooled(walk: Walk, call: Call) -> Result:
    """Windows over the last dimensions; a window of zeros gives 0."""
    x = call["self"] if call["self"] is not None else call["input"]
    sizes = next(
        call[name] for name in ("kernel_size", "output_size", "size", "scale_factors") if call[name] is not None
    )
    moved = len(sizes) if isinstance(sizes, list | tuple) and len(sizes) > 1 else None
    kept = len(x.shape) - (moved or max(len(x.shape) - 2, 1))
    stay(walk, x.dims[kept:], "is moved over by a window")
    made = [Value(shape, (*x.dims[:kept], *(None,) * (len(shape) - kept))) for shape in call.shapes]
    return made[0] if len(made) == 1 else made


# Layout.
