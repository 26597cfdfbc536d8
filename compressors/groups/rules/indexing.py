"""Reading and writing at indices: known ones select units, those that depend on data fix them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressors.groups.rules.call import Call, fix_all, unknown
from compressors.groups.rules.elementwise import all_zero, nowhere_zero
from compressors.groups.rules.reductions import over
from compressors.groups.walk import Axis, Dim, Value, Walk

INDEXED = "is read by an index that depends on data"


def indexed(walk: Walk, call: Call) -> Value:
    """`x[:, index]` of one or more indices that stand beside each other."""
    x = call["self"]
    indices = list(call["indices"])
    places = [place for place, index in enumerate(indices) if index is not None]
    for index in filter(None, indices):
        fix_all(walk, index, "is an index")
    for place in places:
        walk.fix(x.dims[place], INDEXED)
    adjacent = places == list(range(places[0], places[-1] + 1))
    if not adjacent or any(index.shape and index.zeros for index in filter(None, indices)):
        return unknown(walk, call)  # type: ignore[return-value]
    more = len(call.shape) - (len(x.shape) - len(places))
    dims = (*x.dims[: places[0]], *(None,) * more, *x.dims[places[-1] + 1 :])
    return replace(x, shape=call.shape, dims=dims) if len(dims) == len(call.shape) else unknown(walk, call)  # type: ignore[return-value]


def index_selected(walk: Walk, call: Call) -> Value:
    x, dim = call["self"], call["dim"] % max(len(call["self"].shape), 1)
    walk.fix(x.dims[dim], INDEXED)
    return replace(x, shape=call.shape, dims=(*x.dims[:dim], None, *x.dims[dim + 1 :]))


def gathered(walk: Walk, call: Call) -> Value:
    """Like its index, whose other dimensions are those of x or shorter."""
    x, index, dim = call["self"], call["index"], call["dim"] % len(call["self"].shape)
    walk.fix(x.dims[dim], INDEXED)
    dims = list(x.dims)
    dims[dim] = None
    for place, size in enumerate(call.shape):
        whole = size == x.shape[place] and index.dims[place] is not None
        if place != dim and not whole:
            walk.fix(dims[place], INDEXED)
            dims[place] = None
    return replace(x, shape=call.shape, dims=tuple(dims))


def embedded(walk: Walk, call: Call) -> Value:
    """Rows of a table by number: the rows stay, the columns go on."""
    weight, indices = call["weight"], call["indices"]
    walk.fix(weight.dims[0], INDEXED)
    walk.produce(weight, weight.dims[1])
    fix_all(walk, indices, "is an index")
    return Value(call.shape, (*(None,) * len(indices.shape), weight.dims[1]))


def scattered(walk: Walk, call: Call) -> Value:
    """`self` with `src` added or put in along a dimension: the others go together."""
    x, source = call["self"], call["src"] if call["src"] is not None else call["source"]
    dim = call["dim"] % len(x.shape)
    if not isinstance(source, Value):
        return unknown(walk, call)  # type: ignore[return-value]
    for value in (x, source):
        walk.fix(value.dims[dim], INDEXED)
    dims: list[Dim] = []
    for place, size in enumerate(x.shape):
        held = [(value.dims[place], value.parameter) for value in (x, source)]
        if place == dim or size == 1:
            dims.append(None)
            continue
        if source.shape[place] != size:
            for one, _ in held:
                walk.fix(one, INDEXED)
            dims.append(None)
            continue
        known = [
            one.zero if isinstance(one, Axis) else np.full(size, value.zeros)
            for (one, _), value in zip(held, (x, source), strict=True)
        ]
        dims.append(walk.joint(held, all_zero(known)))
    return Value(call.shape, tuple(dims), zeros=x.zeros and source.zeros)


def segmented(walk: Walk, call: Call) -> Value:
    """`segment_reduce` over the first dimension."""
    x = call["data"]
    walk.fix(x.dims[0], INDEXED)
    return replace(x, shape=call.shape, dims=(None, *x.dims[1:]))


def arg_reduced(walk: Walk, call: Call) -> Value:
    x = call["self"]
    gone = over(call, x)
    for place in gone:
        walk.fix(x.dims[place], "is read by position")
    kept = [None if place in gone else dim for place, dim in enumerate(x.dims) if call["keepdim"] or place not in gone]
    return nowhere_zero(Value(call.shape, tuple(kept)))


def ranked(walk: Walk, call: Call) -> list[Value]:
    """`topk`, `sort`: along their dimension positions lose their meaning."""
    x = call["self"]
    dim = (call["dim"] if call["dim"] is not None else -1) % len(x.shape)
    walk.fix(x.dims[dim], "is sorted by value")
    dims = tuple(None if place == dim else one for place, one in enumerate(x.dims))
    return [nowhere_zero(Value(shape, dims)) for shape in call.shapes]


def accumulated(walk: Walk, call: Call) -> Value:
    """`cumsum`: along its dimension a sum of what is before, which is not 0 where the unit is."""
    x, dim = call["self"], call["dim"] % len(call["self"].shape)
    axis = x.axis(dim)
    if axis is None:
        return x
    walk.blur(axis.ids[~axis.zero], "sums a value that is not 0 where the unit is")
    dims = (*x.dims[:dim], Axis(axis.ids, np.zeros_like(axis.zero)), *x.dims[dim + 1 :])
    return replace(x, dims=dims)
