"""What every operator of a graph does to rows and columns: the table of rules.

A rule gets the walk and one call and answers the value that it makes, or a list of them. An operator that is not in the
table fixes whatever enters it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressors.groups.walk import ELASTIC, Axis, Dim, Ids, Split, Value, Walk


@dataclass(frozen=True, slots=True)
class Call:
    """One node of the graph: its own name, the arguments by the names of the operator's schema, and the shapes of what
    it answers (one per tensor)."""

    name: str
    arguments: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    @property
    def values(self) -> list[Value]:
        """All tensors among the arguments."""
        return list(tensors(self.arguments.values()))


Result: TypeAlias = Value | list[Value]
Rule: TypeAlias = Callable[[Walk, Call], Result]


def tensors(arguments: Any) -> list[Value]:
    found: list[Value] = []
    for one in arguments:
        if isinstance(one, Value):
            found.append(one)
        elif isinstance(one, list | tuple):
            found.extend(tensors(one))
    return found


def plain(shape: Sequence[int]) -> Value:
    """A value of sizes that stay."""
    return Value(tuple(shape), (None,) * len(shape))


def unknown(walk: Walk, call: Call) -> Result:
    """Whatever enters stays as it is."""
    for value in call.values:
        for dim in value.dims:
            walk.fix(dim, "is read by an operator without a rule")
    made = [plain(shape) for shape in call.shapes]
    return made[0] if len(made) == 1 else made


def fix_all(walk: Walk, value: Value, text: str) -> None:
    for dim in value.dims:
        walk.fix(dim, text)


# Position by position.


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
    return same(walk, call) if positive else joined(walk, call.values, call.shape, _never)


def clamped(walk: Walk, call: Call) -> Value:
    low, high = (call[name] for name in ("min", "max"))
    numbers = all(one is None or isinstance(one, int | float) for one in (low, high))
    holds = numbers and (low is None or low <= 0) and (high is None or high >= 0)
    return same(walk, call) if holds else joined(walk, call.values, call.shape, _never)


def filled(walk: Walk, call: Call) -> Value:
    """`value` where a mask says so."""
    keeps = call["value"] == 0
    return joined(walk, [call["self"], call["mask"]], call.shape, _first if keeps else _never)


def _all(zeros: list[Any]) -> Any:
    return np.logical_and.reduce(zeros)


def _any(zeros: list[Any]) -> Any:
    return np.logical_or.reduce(zeros)


def _first(zeros: list[Any]) -> Any:
    return zeros[0]


def _never(zeros: list[Any]) -> Any:
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
    return joined(walk, call.values, call.shape, _never if number else _all)


def multiplied(walk: Walk, call: Call) -> Value:
    """A product is 0 where one of its factors is."""
    return joined(walk, call.values, call.shape, _any)


def divided(walk: Walk, call: Call) -> Value:
    values = call.values
    if not isinstance(call["self"], Value):
        return joined(walk, values, call.shape, _never)
    for dim in values[1].dims if len(values) > 1 else ():
        if isinstance(dim, Axis):
            walk.blur(dim.ids[dim.zero], "divides by a value that is 0 where the unit is")
    return joined(walk, values, call.shape, _first)


def compared(walk: Walk, call: Call) -> Value:
    return joined(walk, call.values, call.shape, _never)


def chosen(walk: Walk, call: Call) -> Value:
    """`where(condition, self, other)`: 0 where both are."""
    values = call.values
    branches = 2 if isinstance(call["self"], Value) and isinstance(call["other"], Value) else 1
    number = any(isinstance(call[name], int | float) and call[name] for name in ("self", "other"))
    ordered = [*values[1:], values[0]]
    return joined(walk, ordered, call.shape, _never if number else (lambda zeros: _all(zeros[:branches])))


def scaled_shifted(walk: Walk, call: Call) -> Value:
    """`self + value * tensor1 * tensor2`, or a quotient."""
    return joined(walk, call.values, call.shape, lambda zeros: zeros[0] & (zeros[1] | zeros[2]))


def gated(walk: Walk, call: Call) -> Value:
    """`glu`: the first half of a dimension times the sigmoid of the second."""
    one, other = _halves(walk, call["self"], call["dim"] if call["dim"] is not None else -1, 2)
    return joined(walk, [one, nowhere_zero(other)], call.shape, _any)


def per_channel(walk: Walk, call: Call) -> Value:
    """`prelu`: a slope per channel, dimension 1."""
    x, weight = call["self"], call["weight"]
    if weight.shape[-1] == 1:
        return same(walk, call)
    return _on(walk, x, 1, [weight])


def _on(walk: Walk, x: Value, dim: int, vectors: Sequence[Value | None], zero: Any = None) -> Value:
    """x, with vectors that go with its dimension `dim`."""
    held = [x.dims[dim], *(vector.dims[0] for vector in vectors if vector is not None)]
    whose = [x.parameter, *(vector.parameter for vector in vectors if vector is not None)]
    dims = list(x.dims)
    before = dims[dim].zero if isinstance(dims[dim], Axis) else None  # type: ignore[union-attr]
    dims[dim] = walk.joint(list(zip(held, whose, strict=True)), before if zero is None else zero)
    return replace(x, dims=tuple(dims))


# Sums of products.


def product(walk: Walk, one: Value, one_is: str, other: Value, other_is: str, result: str, count: bool = True) -> Value:
    """A sum of products over letters, as `einsum` has them: `bij,bjk->bik`."""
    sizes: dict[str, int] = {}
    dims: dict[str, Dim] = {}
    parameter = one.parameter and other.parameter
    for letter in dict.fromkeys(one_is + other_is):
        places = [
            (value, letters.index(letter)) for value, letters in ((one, one_is), (other, other_is)) if letter in letters
        ]
        sizes[letter] = max(value.shape[place] for value, place in places)
        held = [(value.dims[place], value) for value, place in places if value.shape[place] > 1]
        dims[letter] = held[0][0] if held else None
        for dim, value in held:
            if letter in result and not parameter:
                walk.produce(value, dim)
        if letter in result and len(held) == 2:
            dims[letter] = walk.joint([(dim, value.parameter) for dim, value in held])
        elif letter not in result and len(held) == 2:
            walk.contract(held[0][0], held[0][1], held[1][0], held[1][1])
        elif letter not in result and held:
            walk.fix(held[0][0], "is summed beside a product")
    if count:
        walk.count(1, [(sizes[letter], dims[letter]) for letter in sizes])
    shape = tuple(sizes[letter] for letter in result)
    return Value(shape, tuple(dims[letter] for letter in result), parameter)


LETTERS = "abcdefghijklmnopqrstuvw"


def linear(walk: Walk, call: Call) -> Value:
    """`x W^T + b`."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    outer = LETTERS[: len(x.shape) - 1]
    if len(weight.shape) == 1:
        return unknown(walk, call)  # type: ignore[return-value]
    made = product(walk, x, f"{outer}x", weight, "yx", f"{outer}y")
    return made if bias is None else joined(walk, [made, bias], made.shape, _all)


def matmul(walk: Walk, call: Call) -> Value:
    """`matmul` of matrices and batches of them, `mm`, `bmm`."""
    one, other = call["self"], call["mat2"] if call["other"] is None else call["other"]
    if len(one.shape) < 2 or len(other.shape) < 2:
        return vectors(walk, one, other, call.shape)
    letters = LETTERS[: max(len(one.shape), len(other.shape)) - 2]
    batch = [letters[len(letters) - (len(value.shape) - 2) :] for value in (one, other)]
    return product(walk, one, f"{batch[0]}xz", other, f"{batch[1]}zy", f"{letters}xy")


def vectors(walk: Walk, one: Value, other: Value, shape: Sequence[int]) -> Value:
    """Products with vectors, which the counter does not count but where it turns them to matrices."""
    a, b = (
        LETTERS[: len(one.shape) - 1] + "z",
        LETTERS[: max(len(other.shape) - 2, 0)] + "z" + "y" * (len(other.shape) > 1),
    )
    count = len(one.shape) > 2 or len(other.shape) > 2
    if len(other.shape) == 1:
        return product(walk, one, a, other, "z", a[:-1], count)
    return product(walk, one, "z", other, b, b.replace("z", ""), count)


def matrix_vector(walk: Walk, call: Call) -> Value:
    return vectors(walk, call["self"], call["vec"] if call["tensor"] is None else call["tensor"], call.shape)


def sum_and_product(walk: Walk, call: Call) -> Value:
    """`addmm` and `baddbmm`: `self + one @ other`."""
    one, other = (call["mat1"], call["mat2"]) if call["mat1"] is not None else (call["batch1"], call["batch2"])
    batch = "b" * (len(one.shape) - 2)
    made = product(walk, one, f"{batch}xz", other, f"{batch}zy", f"{batch}xy")
    return joined(walk, [made, call["self"]], made.shape, _all)


def einsum(walk: Walk, call: Call) -> Result:
    """Of one or two operands without repeated letters or dots."""
    inputs, _, result = call["equation"].replace(" ", "").partition("->")
    terms, values = inputs.split(","), list(call["tensors"])
    plainly = "." not in inputs and "->" in call["equation"] and all(len(set(term)) == len(term) for term in terms)
    if not plainly or len(values) != 2:
        return unknown(walk, call)
    return product(walk, values[0], terms[0], values[1], terms[1], result)


def attention(walk: Walk, call: Call) -> Value:
    """`softmax(q k^T / sqrt(e)) v`: `[..., l, e], [..., s, e], [..., s, v]`."""
    q, k, v, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    batch = LETTERS[: len(q.shape) - 2]
    scores = product(walk, q, f"{batch}xz", k, f"{batch}yz", f"{batch}xy")
    if mask is not None:
        scores = joined(walk, [scores, mask], scores.shape, _never)
    return product(walk, nowhere_zero(scores), f"{batch}xy", v, f"{batch}yz", f"{batch}xz")


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
            read = _equal_positions(walk, read, groups)
            rows = _equal_positions(walk, rows, groups)
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
    _stay(walk, x.dims[2:], "is moved over by a window")
    return made if bias is None or width == 1 else _on(walk, made, 1, [bias], _both(rows, bias.dims[0]))


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
    _stay(walk, x.dims[2:], "is moved over by a window")
    if bias is None or width == 1 or groups > 1:
        return made
    return _on(walk, made, 1, [bias], _both(rows, bias.dims[0]))


def _fixed_vector(walk: Walk, vector: Value | None) -> None:
    if vector is not None:
        walk.fix(vector.dims[0], "goes with something whose size stays")


def _both(one: Dim, other: Dim) -> Any:
    return one.zero & other.zero if isinstance(one, Axis) and isinstance(other, Axis) else None


def _stay(walk: Walk, dims: Sequence[Dim], text: str) -> None:
    for dim in dims:
        walk.fix(dim, text)


def _equal_positions(walk: Walk, dim: Dim, groups: int) -> Dim:
    """The same positions of equal parts of a dimension can only go together."""
    if isinstance(dim, Axis):
        parts = dim.ids.reshape(groups, -1)
        for part in parts[1:]:
            walk.unite(parts[0], part)
    return dim


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


def recurrent(walk: Walk, call: Call) -> Result:
    """`lstm`, `gru`, `rnn_tanh`, `rnn_relu`: unit j is the rows j, j + H, ... of every matrix and bias, column j of the
    recurrent one, and the same of all layers and directions, which have one width."""
    x = call["input"]
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    both = bool(call["bidirectional"])
    parts = 2 if call["has_biases"] else 1
    params = list(call["params"])
    per = 2 * parts
    if len(params) % per or len(params) // per != call["num_layers"] * (1 + both):
        return unknown(walk, call)  # projections
    hidden = params[1].shape[1]
    gates = params[0].shape[0] // hidden
    unit: Axis | None = None
    read: Dim = x.dims[-1]
    for place in range(0, len(params), per):
        into, again, *biases = params[place : place + per]
        rows = [value.axis(0) for value in (into, again, *biases)]
        recurrent_columns = again.axis(1)
        if recurrent_columns is None or any(row is None for row in rows):
            return unknown(walk, call)
        for row in filter(None, rows):
            if unit is None:
                unit = Axis(row.ids[:hidden], row.zero[:hidden])
            walk.unite(np.tile(unit.ids, gates), row.ids)
        assert unit is not None
        walk.contract(unit, plain((hidden,)), recurrent_columns, again)
        if place // per % (1 + both) == 0 and place:  # a new layer reads all directions of the one before
            read = Axis(np.tile(unit.ids, 1 + both), np.ones(hidden * (1 + both), dtype=bool))
        walk.contract(read, x, into.dims[1], into)
        steps = math.prod(x.shape[:-1])
        walk.count(steps, [(into.shape[0], rows[0]), (into.shape[1], into.dims[1])])
        walk.count(steps, [(again.shape[0], rows[1]), (hidden, recurrent_columns)])
    assert unit is not None
    for state in states:
        if isinstance(state.dims[-1], Axis):
            walk.unite(unit.ids, state.dims[-1].ids)
        elif state.dims[-1] is None:
            walk.fix(unit, "begins with a state whose size stays")
        own = state.axis(-1)
        if not (state.zeros if own is None else own.zero.all()):
            walk.blur(unit.ids, "begins with a state that is not 0 where the unit is")
    wide = Axis(np.tile(unit.ids, 1 + both), np.tile(unit.zero, 1 + both))
    outer = Value(call.shapes[0], (*x.dims[:-1], wide))
    return [outer, *(Value(shape, (*(None,) * (len(shape) - 1), unit)) for shape in call.shapes[1:])]


def recurrent_cell(walk: Walk, call: Call) -> Result:
    """One step of `recurrent`: `lstm_cell`, `gru_cell`, `rnn_tanh_cell`."""
    into, again = call["w_ih"], call["w_hh"]
    state = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    biases = [call[name] for name in ("b_ih", "b_hh") if call[name] is not None]
    layer = {
        "input": call["input"],
        "hx": state,
        "params": [into, again, *biases],
        "has_biases": bool(biases),
        "num_layers": 1,
    }
    made = recurrent(walk, Call(call.name, layer, (call.shape, *call.shapes[1:])))
    if not isinstance(made, list):
        return made
    return made if len(call.shapes) > 1 else made[0]


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
    return joined(walk, [g, v], v.shape, _any)


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
        if vector is not None and vector.axis(0) is not None:
            walk.consumed.append(vector.dims[0].ids)
    return _on(walk, x, 1, [weight, bias, *statistics], zero)


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
    made = joined(walk, [x, weight], x.shape, _any)
    return made if bias is None else joined(walk, [made, bias], x.shape, _all)


def group_norm(walk: Walk, call: Call) -> Value:
    """Mean and variance over the channels of a group; the same positions of groups go together."""
    x, weight, bias, groups = (call[name] for name in ("input", "weight", "bias", "num_groups"))
    channels = x.dims[1]
    if weight is None:
        walk.fix(channels, "is normalised by a layer that owns no tensor of this width")
        return x
    if groups != x.shape[1]:
        _equal_positions(walk, channels, groups)
        if isinstance(channels, Axis):
            walk.blur(channels.ids, "normalises over the units")
    return _on(walk, x, 1, [weight, bias], np.full(x.shape[1], bias is not None))


def instance_norm(walk: Walk, call: Call) -> Value:
    return batch_norm(walk, call)


def softmax(walk: Walk, call: Call) -> Value:
    x = nowhere_zero(call["self"])
    dim = x.axis(call["dim"])
    if dim is not None:
        walk.blur(dim.ids, "normalises over the units")
    return x


# Sums, means and windows.


def _over(call: Call, x: Value) -> set[int]:
    dims = call["dim"]
    if dims is None or dims == []:
        return set(range(len(x.shape)))
    return {dim % len(x.shape) for dim in ([dims] if isinstance(dims, int) else dims)}


def reduced(walk: Walk, call: Call, exact: bool, text: str = "", keeps_zero: bool = True) -> Result:
    """Dimensions are summed away, or more than that; `exact`: zeros add nothing."""
    x = call["self"]
    gone = _over(call, x)
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
    _stay(walk, x.dims[kept:], "is moved over by a window")
    made = [Value(shape, (*x.dims[:kept], *(None,) * (len(shape) - kept))) for shape in call.shapes]
    return made[0] if len(made) == 1 else made


# Layout.


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
            None if place == along or call.shape[place] == 1 else walk.joint(held, _all(zeros) if zeros else None)
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
    made = joined(walk, values, values[0].shape, _all)
    dim = (call["dim"] or 0) % len(call.shape)
    return replace(made, shape=call.shape, dims=(*made.dims[:dim], None, *made.dims[dim:]))


def _halves(walk: Walk, x: Value, dim: int, count: int) -> list[Value]:
    """Equal parts of a dimension, whose same positions go together."""
    dim %= len(x.shape)
    size = x.shape[dim] // count
    _equal_positions(walk, x.dims[dim], count)
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
        return _halves(walk, x, dim, len(sizes))
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
    return _halves(walk, x, dim, size // part)[start // part]


def selected(walk: Walk, call: Call) -> Value:
    """One position of a dimension."""
    x, dim = call["self"], call["dim"] % len(call["self"].shape)
    walk.fix(x.dims[dim], "is read at one position")
    return replace(x, shape=call.shape, dims=(*x.dims[:dim], *x.dims[dim + 1 :]))


def unbound(walk: Walk, call: Call) -> list[Value]:
    x, dim = call["self"], (call["dim"] or 0) % len(call["self"].shape)
    walk.fix(x.dims[dim], "is read at one position")
    return [replace(x, shape=shape, dims=(*x.dims[:dim], *x.dims[dim + 1 :])) for shape in call.shapes]


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
        dims.append(walk.joint(held, _all(known)))
    return Value(call.shape, tuple(dims), zeros=x.zeros and source.zeros)


def segmented(walk: Walk, call: Call) -> Value:
    """`segment_reduce` over the first dimension."""
    x = call["data"]
    walk.fix(x.dims[0], INDEXED)
    return replace(x, shape=call.shape, dims=(None, *x.dims[1:]))


def arg_reduced(walk: Walk, call: Call) -> Value:
    x = call["self"]
    gone = _over(call, x)
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


def _table() -> dict[str, Rule]:
    groups: Sequence[tuple[Rule, str]] = (
        (
            same,
            "relu relu6 leaky_relu elu selu celu gelu silu mish tanh hardtanh hardswish softsign abs neg sqrt sin tan",
        ),
        (
            same,
            "erf sign sinh asinh atan square sgn floor ceil round trunc expm1 log1p hardshrink softshrink tanhshrink",
        ),
        (
            same,
            "rrelu threshold contiguous clone detach alias to _to_copy type_as dropout feature_dropout alpha_dropout",
        ),
        (same, "lift_fresh_copy lift_fresh lift zero positive real conj resolve_conj resolve_neg float half double"),
        (shifted, "sigmoid hardsigmoid exp exp2 cos cosh softplus log_sigmoid reciprocal rsqrt log log2 log10"),
        (shifted, "logical_not bitwise_not isnan isinf isfinite erfc logit acos"),
        (powered, "pow float_power"),
        (clamped, "clamp clamp_min clamp_max clip"),
        (filled, "masked_fill"),
        (added, "add sub subtract rsub maximum minimum fmax fmin hypot logical_or bitwise_or"),
        (multiplied, "mul multiply logical_and bitwise_and"),
        (divided, "div divide true_divide floor_divide remainder fmod"),
        (compared, "eq ne lt le gt ge equal xlogy atan2"),
        (chosen, "where"),
        (scaled_shifted, "addcmul addcdiv"),
        (gated, "glu"),
        (per_channel, "prelu"),
        (linear, "linear"),
        (matmul, "matmul mm bmm"),
        (matrix_vector, "mv dot vdot"),
        (sum_and_product, "addmm baddbmm"),
        (einsum, "einsum"),
        (attention, "scaled_dot_product_attention"),
        (convolution, "conv1d conv2d conv3d"),
        (transposed_convolution, "conv_transpose1d conv_transpose2d conv_transpose3d"),
        (recurrent, "lstm gru rnn_tanh rnn_relu"),
        (recurrent_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
        (weight_normalised, "_weight_norm"),
        (batch_norm, "batch_norm instance_norm"),
        (layer_norm, "layer_norm rms_norm"),
        (group_norm, "group_norm"),
        (softmax, "softmax log_softmax _softmax _log_softmax"),
        (partial(reduced, exact=True), "sum"),
        (partial(reduced, exact=False, text="takes a mean over the units"), "mean"),
        (partial(reduced, exact=False, text="takes the largest or least over the units"), "amax amin max min median"),
        (partial(reduced, exact=False, text="takes a statistic over the units"), "var std aminmax"),
        (partial(reduced, exact=False, text="multiplies all units"), "prod all any"),
        (partial(reduced, exact=False, text="sums over the units", keeps_zero=False), "logsumexp"),
        (normed, "linalg_vector_norm norm"),
        (pooled, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices"),
        (pooled, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        (pooled, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
        (pooled, "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d"),
        (pooled, "upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa"),
        (viewed, "view reshape flatten unflatten _unsafe_view squeeze view_as reshape_as ravel _reshape_alias"),
        (permuted, "permute"),
        (swapped, "transpose t swapaxes swapdims numpy_T"),
        (moved, "movedim moveaxis"),
        (unsqueezed, "unsqueeze"),
        (expanded, "expand expand_as broadcast_to"),
        (repeated, "repeat tile"),
        (flipped, "flip"),
        (padded, "constant_pad_nd pad"),
        (concatenated, "cat concat concatenate"),
        (block_diagonal, "block_diag"),
        (stacked, "stack"),
        (parted, "chunk split split_with_sizes"),
        (sliced, "slice narrow"),
        (selected, "select"),
        (unbound, "unbind"),
        (indexed, "index"),
        (index_selected, "index_select"),
        (gathered, "gather"),
        (embedded, "embedding"),
        (scattered, "scatter scatter_add scatter_reduce index_add index_reduce index_copy"),
        (segmented, "segment_reduce"),
        (arg_reduced, "argmax argmin"),
        (ranked, "topk sort"),
        (accumulated, "cumsum"),
        (shuffled_space, "pixel_shuffle"),
        (unfolded, "im2col"),
        (partial(constant, zeros=True), "zeros new_zeros"),
        (partial(constant, zeros=False), "ones new_ones empty new_empty rand randn"),
        (partial(filled_like, zeros=True), "zeros_like"),
        (partial(filled_like, zeros=False), "ones_like empty_like rand_like randn_like"),
        (full, "full full_like new_full"),
        (shaped, "arange eye linspace scalar_tensor tensor one_hot"),
        (message, "message"),
    )
    return {name: rule for rule, names in groups for name in names.split()}


RULES: Mapping[str, Rule] = _table()
"""By the name of an operator without its overload, and without the `_` of one that writes in place."""

__all__ = ["RULES", "Call", "Result", "plain", "unknown"]
