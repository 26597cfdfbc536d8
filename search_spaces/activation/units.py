"""The functions that trees of activations are made of, once for numpy and for torch.

Ramachandran, Zoph and Le, "Searching for Activation Functions", 2018, section 2: a core unit is a binary function of
unary functions of two inputs. `b` is trained per channel and starts at 1. Deviations: `first` leaves the second input
out, so that a unit may be unary; `phi`, the distribution function of a normal variable, stands for erf, so that GELU is
x*phi(x), and `leak(x) = 0.01 x` for the constants that the paper does not have, so that there is LeakyReLU. Conventions
are those of `evonorm`: `sqrt(x) = sign(x) * sqrt(|x| + eps)`, `log(x) = ln(|x| + eps)`, x / (y + eps) as published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

EPS = 1e-5
LEAK = 0.01


@dataclass(frozen=True)
class Library:
    """What numpy and torch call differently: `module` holds what they have in common."""

    module: Any
    relu: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    softplus: Callable[[Any], Any]
    phi: Callable[[Any], Any]


Unary = Callable[[Library, Any, Any], Any]  # of x and b
Binary = Callable[[Library, Any, Any, Any], Any]  # of x, y and b

IDENTITY, CONSTANT, FIRST = "id", "b", "first"

UNARY: Mapping[str, Unary] = {
    IDENTITY: lambda lib, x, b: x,
    "neg": lambda lib, x, b: -x,
    "abs": lambda lib, x, b: lib.module.abs(x),
    "square": lambda lib, x, b: x * x,
    "cube": lambda lib, x, b: x * x * x,
    "sqrt": lambda lib, x, b: lib.module.sign(x) * lib.module.sqrt(lib.module.abs(x) + EPS),
    "scale": lambda lib, x, b: b * x,
    "shift": lambda lib, x, b: x + b,
    "log": lambda lib, x, b: lib.module.log(lib.module.abs(x) + EPS),
    "exp": lambda lib, x, b: lib.module.exp(x),
    "sin": lambda lib, x, b: lib.module.sin(x),
    "cos": lambda lib, x, b: lib.module.cos(x),
    "sinh": lambda lib, x, b: lib.module.sinh(x),
    "cosh": lambda lib, x, b: lib.module.cosh(x),
    "tanh": lambda lib, x, b: lib.module.tanh(x),
    "asinh": lambda lib, x, b: lib.module.arcsinh(x),
    "atan": lambda lib, x, b: lib.module.arctan(x),
    "sinc": lambda lib, x, b: lib.module.sinc(x / math.pi),
    "relu": lambda lib, x, b: lib.relu(x),
    "negative": lambda lib, x, b: x - lib.relu(x),
    "sigmoid": lambda lib, x, b: lib.sigmoid(x),
    "softplus": lambda lib, x, b: lib.softplus(x),
    "gauss": lambda lib, x, b: lib.module.exp(-x * x),
    "phi": lambda lib, x, b: lib.phi(x),
    "leak": lambda lib, x, b: LEAK * x,
    CONSTANT: lambda lib, x, b: b,
}
BINARY: Mapping[str, Binary] = {
    FIRST: lambda lib, x, y, b: x,
    "add": lambda lib, x, y, b: x + y,
    "mul": lambda lib, x, y, b: x * y,
    "sub": lambda lib, x, y, b: x - y,
    "div": lambda lib, x, y, b: x / (y + EPS),
    "max": lambda lib, x, y, b: lib.module.maximum(x, y),
    "min": lambda lib, x, y, b: lib.module.minimum(x, y),
    "gate": lambda lib, x, y, b: lib.sigmoid(x) * y,
    "near": lambda lib, x, y, b: lib.module.exp(-b * (x - y) * (x - y)),
    "close": lambda lib, x, y, b: lib.module.exp(-b * lib.module.abs(x - y)),
    "blend": lambda lib, x, y, b: b * x + (1 - b) * y,
}
TRAINED_UNARY = frozenset({"scale", "shift", CONSTANT})
TRAINED_BINARY = frozenset({"near", "close", "blend"})
"""What reads b."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A unary function of an earlier value: 0 is x, i the output of unit i. `CONSTANT` reads none, and has 0."""

    unary: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """A binary function of two operands; `FIRST` has none as the second one."""

    binary: str
    first: Operand
    second: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def trained(self) -> bool:
        return self.binary in TRAINED_BINARY or any(each.unary in TRAINED_UNARY for each in self.operands)


Tree = tuple[Unit, ...]
"""Units in order, none of them unused: the last one is the output."""


def live(units: Tree) -> Tree:
    """Without the units that the last one does not depend on."""
    used = {len(units)}
    for number in range(len(units), 0, -1):
        if number in used:
            used.update(each.place for each in units[number - 1].operands)
    places = {0: 0}
    found: list[Unit] = []
    for number, unit in enumerate(units, 1):
        if number in used:
            moved = [Operand(each.unary, places[each.place]) for each in unit.operands]
            found.append(Unit(unit.binary, *moved))
            places[number] = len(found)
    return tuple(found)


def computed(tree: Tree, lib: Library, x: Any, b: Any) -> Any:
    """The output; b is read where a unit is trained."""
    nodes = [x]
    for unit in tree:
        values = [UNARY[each.unary](lib, nodes[each.place], b) for each in unit.operands]
        nodes.append(BINARY[unit.binary](lib, values[0], values[-1], b))
    return nodes[-1]
