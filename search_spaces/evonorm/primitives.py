"""The elementary functions that layers of the space `evonorm` are made of, once for numpy and for torch.

Values have the shape `[..., n, g, k, p]`: samples, groups, channels of a group, positions, any of the four 1 where the
value is the same along it. Conventions, the same everywhere:
- eps is added inside roots and logarithms: `sqrt(x) = sign(x) * sqrt(|x| + eps)`, `log(x) = sign(x) * ln(|x| + eps)`,
  `std = sqrt(var + eps)`, `rms = sqrt(mean(x^2) + eps)`; `var` has none.
- Division is plain, and so 1 / 0 is not finite.
- Moments are biased: divided by the count of what they are of.
- The number of groups is the greatest common divisor of the channels and 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

GROUPS = 32
EPS = 1e-5

SAMPLES, GROUP, CHANNELS, POSITIONS = -4, -3, -2, -1
INDEX_SETS: Mapping[str, tuple[int, ...]] = {
    "hw": (POSITIONS,),
    "chw": (GROUP, CHANNELS, POSITIONS),
    "group": (CHANNELS, POSITIONS),
    "bhw": (SAMPLES, POSITIONS),
}
"""The axes that a moment is taken over: of one channel of a sample, of a sample, of a group of channels of a sample, of
a channel of the batch."""
BATCH = "bhw"


@dataclass(frozen=True)
class Library:
    """What numpy and torch call differently: `module` holds what they have in common."""

    module: Any
    mean: Callable[[Any, tuple[int, ...]], Any]  # over axes, which are kept
    variance: Callable[[Any, tuple[int, ...]], Any]  # biased, likewise
    sigmoid: Callable[[Any], Any]


Unary = Callable[[Library, Any, float], Any]
Binary = Callable[[Any, Any, Any], Any]

UNARY: Mapping[str, Unary] = {
    "neg": lambda lib, x, eps: -x,
    "sigmoid": lambda lib, x, eps: lib.sigmoid(x),
    "tanh": lambda lib, x, eps: lib.module.tanh(x),
    "exp": lambda lib, x, eps: lib.module.exp(x),
    "log": lambda lib, x, eps: lib.module.sign(x) * lib.module.log(lib.module.abs(x) + eps),
    "abs": lambda lib, x, eps: lib.module.abs(x),
    "square": lambda lib, x, eps: x * x,
    "sqrt": lambda lib, x, eps: lib.module.sign(x) * lib.module.sqrt(lib.module.abs(x) + eps),
}
BINARY: Mapping[str, Binary] = {
    "add": lambda module, x, y: x + y,
    "mul": lambda module, x, y: x * y,
    "div": lambda module, x, y: x / y,
    "max": lambda module, x, y: module.maximum(x, y),
}
COMMUTATIVE = frozenset({"add", "mul", "max"})

Moment = Callable[[Library, Any, tuple[int, ...]], Any]


# Of each statistic the moment that it is of (the one that a moving average is kept of), and whether its root is taken.
STATISTICS: Mapping[str, tuple[Moment, bool]] = {
    "mean": (lambda lib, x, axes: lib.mean(x, axes), False),
    "rms": (lambda lib, x, axes: lib.mean(x * x, axes), True),
    "std": (lambda lib, x, axes: lib.variance(x, axes), True),
    "var": (lambda lib, x, axes: lib.variance(x, axes), False),
}
AGGREGATIONS = {f"{what}_{over}": (what, over) for over in INDEX_SETS for what in STATISTICS}
OPS = (*BINARY, *UNARY, *AGGREGATIONS)


def of_batch(op: str) -> bool:
    """Whether an operation takes a moment of the batch."""
    return op in AGGREGATIONS and AGGREGATIONS[op][1] == BATCH


def groups_of(channels: int) -> int:
    """The number of groups that channels are in."""
    return gcd(channels, GROUPS)


def rooted(lib: Library, what: str, moment: Any, eps: float) -> Any:
    """A statistic from the moment that it is of."""
    return lib.module.sqrt(moment + eps) if STATISTICS[what][1] else moment


def apply(lib: Library, op: str, x: Any, y: Any, eps: float) -> Any:
    """The value of an operation; `y` is read by binary ones alone."""
    if op in BINARY:
        return BINARY[op](lib.module, x, y)
    if op in UNARY:
        return UNARY[op](lib, x, eps)
    what, over = AGGREGATIONS[op]
    return rooted(lib, what, STATISTICS[what][0](lib, x, INDEX_SETS[over]), eps)
