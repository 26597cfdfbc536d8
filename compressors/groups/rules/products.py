"""Matrix products: what they contract stays together, and what they keep goes on. Attention is two of them."""

from __future__ import annotations

from collections.abc import Sequence

from compressors.groups.rules.call import Call, Result, unknown
from compressors.groups.rules.elementwise import all_zero, joined, never_zero, nowhere_zero
from compressors.groups.walk import Dim, Value, Walk


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
    return made if bias is None else joined(walk, [made, bias], made.shape, all_zero)


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
    return joined(walk, [made, call["self"]], made.shape, all_zero)


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
        scores = joined(walk, [scores, mask], scores.shape, never_zero)
    return product(walk, nowhere_zero(scores), f"{batch}xy", v, f"{batch}yz", f"{batch}xz")
