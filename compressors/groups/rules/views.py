"""What gives the same entries in another shape: views that split and merge dimensions, permutations, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressors.groups.rules.call import Call
from compressors.groups.rules.elementwise import nowhere_zero
from compressors.groups.walk import ELASTIC, Axis, Dim, Ids, Split, Value, Walk


def reshaped(walk: Walk, x: Value, shape: Sequence[int], name: str) -> Value:
    """Views merge and split dimensions. What is split goes on in one of the new dimensions, and the ids of the same
    position there go together."""
    dims: list[Dim] = []
    old = new = 0
    while old < len(x.shape) or new < len(shape):
        start, begin = old, new
        before = after = 1
        if old < len(x.shape) and new < len(shape):
            before, after, old, new = x.shape[old], shape[new], old + 1, new + 1
        elif old < len(x.shape):
            before, old = x.shape[old], old + 1
        else:
            after, new = shape[new], new + 1
        while before != after:
            if before < after:
                before, old = before * x.shape[old], old + 1
            else:
                after, new = after * shape[new], new + 1
        dims += _block(walk, x, range(start, old), shape[begin:new], f"{name}/{begin}")
    return Value(tuple(shape), tuple(dims), x.parameter, x.zeros)


def _block(walk: Walk, x: Value, places: range, sizes: Sequence[int], name: str) -> list[Dim]:
    """Adjacent dimensions that become others of the same number of elements."""
    dims: list[Dim] = [None] * len(sizes)
    wide = [place for place, size in enumerate(sizes) if size > 1]
    held = [place for place in places if isinstance(x.dims[place], Axis)]
    if not held:
        elastic = any(x.dims[place] is ELASTIC for place in places)
        return [ELASTIC if elastic and size > 1 else None for size in sizes]
    main = max(held, key=lambda place: x.shape[place])
    for place in held:
        if place != main and walk.choices is not None:
            walk.fix(x.dims[place], "is merged with another width")
        elif place != main:
            walk.undecided = True
    axis = x.axis(main)
    assert axis is not None
    shape = [x.shape[place] for place in places]
    along = [1] * len(shape)
    along[main - places.start] = axis.ids.size
    ids: Ids = np.broadcast_to(axis.ids.reshape(along), shape).reshape(-1)
    zero: NDArray[np.bool_] = np.broadcast_to(axis.zero.reshape(along), shape).reshape(-1)
    if len(wide) == 1:
        dims[wide[0]] = Axis(ids, zero)
        return dims
    chosen = _goes_on(walk, ids, sizes, wide, name)
    if chosen is None:
        for place in wide:
            dims[place] = Axis(walk.fresh(sizes[place]), np.ones(sizes[place], dtype=bool))
        walk.splits[name] = Split({place: dims[place].ids for place in wide})  # type: ignore[union-attr]
        return dims
    parts: Ids = np.moveaxis(ids.reshape(sizes), chosen, 0).reshape(sizes[chosen], -1)
    zeros: NDArray[np.bool_] = np.moveaxis(zero.reshape(sizes), chosen, 0).reshape(sizes[chosen], -1)
    for other in parts.T[1:]:
        walk.unite(parts[:, 0], other)
    dims[chosen] = Axis(parts[:, 0].copy(), np.all(zeros, axis=1))
    return dims


def _goes_on(walk: Walk, ids: Ids, sizes: Sequence[int], wide: Sequence[int], name: str) -> int | None:
    """Which of the new dimensions the ids vary along; where that is no single one, what was chosen."""
    for known in (ids, None):
        table = (walk.classes()[ids] if known is None else known).reshape(sizes)
        varying = [place for place in wide if (table != table.take([0], axis=place)).any()]
        if len(varying) == 1:
            return varying[0]
    if walk.choices is None:
        return None
    return walk.choices.get(name, max(wide, key=lambda place: sizes[place]))


def viewed(walk: Walk, call: Call) -> Value:
    return reshaped(walk, call["self"], call.shape, call.name)


def permuted(walk: Walk, call: Call) -> Value:
    x = call["self"]
    order = [dim % len(x.shape) for dim in call["dims"]]
    return replace(x, shape=call.shape, dims=tuple(x.dims[dim] for dim in order))


def swapped(walk: Walk, call: Call) -> Value:
    x, count = call["self"], len(call["self"].shape)
    order = list(range(count))
    if count > 1:
        one, other = (call["dim0"], call["dim1"]) if call["dim0"] is not None else (0, 1)
        one, other = one % count, other % count
        order[one], order[other] = order[other], order[one]
    return replace(x, shape=call.shape, dims=tuple(x.dims[dim] for dim in order))


def moved(walk: Walk, call: Call) -> Value:
    x, count = call["self"], len(call["self"].shape)
    source, target = (
        [dim % count for dim in ([call[name]] if isinstance(call[name], int) else call[name])]
        for name in ("source", "destination")
    )
    rest = iter(dim for dim in range(count) if dim not in source)
    order = [source[target.index(place)] if place in target else next(rest) for place in range(count)]
    return replace(x, shape=call.shape, dims=tuple(x.dims[dim] for dim in order))


def unsqueezed(walk: Walk, call: Call) -> Value:
    x, dim = call["self"], call["dim"] % len(call.shape)
    return replace(x, shape=call.shape, dims=(*x.dims[:dim], None, *x.dims[dim:]))


def expanded(walk: Walk, call: Call) -> Value:
    """Dimensions of size 1, and new ones before all others, repeat what is there."""
    x = call["self"]
    more = len(call.shape) - len(x.shape)
    dims = [ELASTIC if size > 1 else None for size in call.shape[:more]]
    dims += [
        ELASTIC if before == 1 and size > 1 else dim
        for dim, before, size in zip(x.dims, x.shape, call.shape[more:], strict=True)
    ]
    return replace(x, shape=call.shape, dims=tuple(dims))


def repeated(walk: Walk, call: Call) -> Value:
    x = call["self"]
    more = len(call.shape) - len(x.shape)
    dims: list[Dim] = [None] * more
    for dim, before, size in zip(x.dims, x.shape, call.shape[more:], strict=True):
        times = size // before
        dims.append(Axis(np.tile(dim.ids, times), np.tile(dim.zero, times)) if isinstance(dim, Axis) else dim)
    return replace(x, shape=call.shape, dims=tuple(dims))


def flipped(walk: Walk, call: Call) -> Value:
    x = call["self"]
    turned = {dim % len(x.shape) for dim in call["dims"]}
    return replace(
        x,
        dims=tuple(
            Axis(dim.ids[::-1].copy(), dim.zero[::-1].copy()) if isinstance(dim, Axis) and place in turned else dim
            for place, dim in enumerate(x.dims)
        ),
    )


def padded(walk: Walk, call: Call) -> Value:
    """A constant around; where it is around units, it stays and they do not."""
    x, pads = call["self"], call["pad"]
    dims = list(x.dims)
    for place in range(len(pads) // 2):
        dim = len(dims) - 1 - place
        before, after = pads[2 * place : 2 * place + 2]
        if not before and not after:
            continue
        axis = x.axis(dim)
        if axis is None or min(before, after) < 0:
            walk.fix(dims[dim], "is cut off")
            dims[dim] = None
            continue
        ids = [walk.constant(max(size, 0), "are constants") for size in (before, after)]
        zeros = [np.full(size, not call["value"]) for size in (before, after)]
        dims[dim] = Axis(np.concatenate([ids[0], axis.ids, ids[1]]), np.concatenate([zeros[0], axis.zero, zeros[1]]))
    made = replace(x, shape=call.shape, dims=tuple(dims))
    return nowhere_zero(made) if call["value"] or call["mode"] not in (None, "constant") else made


def shuffled_space(walk: Walk, call: Call) -> Value:
    """`pixel_shuffle`: r * r channels become one of r times the height and width."""
    x, factor = call["self"], call["upscale_factor"]
    channels, *_ = x.shape[-3:]
    split = (*x.shape[:-3], channels // factor**2, factor**2, *x.shape[-2:])
    choice = {f"{call.name}/{len(x.shape) - 3}": 0}
    own = Walk(choice, walk.size, walk.pairs, walk.fixed, walk.inexact, operator=walk.operator, at=walk.at)
    made = reshaped(own, x, split, call.name)
    return Value(call.shape, (*made.dims[: len(x.shape) - 2], None, None))


def unfolded(walk: Walk, call: Call) -> Value:
    """`im2col`: `[n, c, h, w]` to `[n, c * kh * kw, places]`."""
    x = call["self"] if call["self"] is not None else call["input"]
    dim = x.axis(1)
    times = call.shape[1] // x.shape[1]
    wide = None if dim is None else Axis(np.repeat(dim.ids, times), np.repeat(dim.zero, times))
    return Value(call.shape, (x.dims[0], wide, None))
