"""Normalisations and softmax: per channel they keep units apart, over channels a unit changes the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressors.groups.rules.call import Call, equal_positions
from compressors.groups.rules.elementwise import all_zero, along, any_zero, joined, nowhere_zero
from compressors.groups.walk import Axis, Value, Walk


def weight_normalised(walk: Walk, call: Call) -> Value:
    """`g v / |v|`, the norm over all dimensions but `dim`."""
    v, g, dim = call["v"], call["g"], call["dim"] or 0
    for place, one in enumerate(v.dims):
        if not isinstance(one, Axis):
            continue
        if place == dim:
            walk.consumed.append(one.ids)  # a row of zeros has no direction; its length is 0 already
        else:
            walk.blur(one.ids, "normalises over what is read")
    return joined(walk, [g, v], v.shape, any_zero)


# Normalisations.


def batch_norm(walk: Walk, call: Call) -> Value:
    """Per channel: 0 where its scale and shift are."""
    x, weight, bias = (call[name] for name in ("input", "weight", "bias"))
    statistics = [call[name] for name in ("running_mean", "running_var")]
    zero = np.full(x.shape[1], weight is not None and bias is not None)
    if all(one is None for one in (weight, bias, *statistics)):
        walk.fix(x.dims[1], "is normalised by a layer that owns no tensor of this width")
        return replace(x, dims=(x.dims[0], None, *x.dims[2:]))
    for vector in statistics:
        # Those that are made of the shift or the scale have the ids of these, which are no statistics.
        if vector is not None and vector.parameter and vector.axis(0) is not None:
            walk.consumed.append(vector.dims[0].ids)
    return along(walk, x, 1, [weight, bias, *statistics], zero)


def layer_norm(walk: Walk, call: Call) -> Value:
    """Mean and variance over the last dimensions."""
    x, weight, bias = (call[name] for name in ("input", "weight", "bias"))
    over = len(call["normalized_shape"])
    for dim in x.dims[len(x.dims) - over :]:
        if isinstance(dim, Axis):
            walk.blur(dim.ids, "normalises over the units")
            if weight is None:
                walk.fix(dim, "is normalised by a layer that owns no tensor of this width")
    if weight is None:
        return x
    made = joined(walk, [x, weight], x.shape, any_zero)
    return made if bias is None else joined(walk, [made, bias], x.shape, all_zero)


def group_norm(walk: Walk, call: Call) -> Value:
    """Mean and variance over the channels of a group; the same positions of groups go together."""
    x, weight, bias, groups = (call[name] for name in ("input", "weight", "bias", "num_groups"))
    channels = x.dims[1]
    if weight is None:
        walk.fix(channels, "is normalised by a layer that owns no tensor of this width")
        return x
    if groups != x.shape[1]:
        equal_positions(walk, channels, groups)
        if isinstance(channels, Axis):
            walk.blur(channels.ids, "normalises over the units")
    return along(walk, x, 1, [weight, bias], np.full(x.shape[1], bias is not None))


def instance_norm(walk: Walk, call: Call) -> Value:
    return batch_norm(walk, call)


def softmax(walk: Walk, call: Call) -> Value:
    x = nowhere_zero(call["self"])
    dim = x.axis(call["dim"])
    if dim is not None:
        walk.blur(dim.ids, "normalises over the units")
    return x


# Sums, means and windows.
