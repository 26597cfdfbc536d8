"""Units and groups: what can be removed from a network together, as plain data.

A *unit* is the least that can be removed of a network: a channel, a hidden feature, a whole head of attention, with
every row and column of every parameter and buffer that goes with it. A *group* holds units that mean the same in the
same tensors, so that they can be compared, and any number of which (but `least`) can go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

Removal = Mapping[str, Collection[int]]
"""By the name of a group, which of its units go (numbers of `Group.units`)."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Entries `indices` of dimension `dim` of the parameter or buffer `tensor`, by its first name in the network."""

    tensor: str
    dim: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`produced`: rows, biases, scales and shifts; with all of them at 0 the unit adds exactly 0 to whatever reads it,
    where it is exact. `consumed`: the columns of what reads it, and statistics of normalisations."""

    produced: tuple[Slice, ...]
    consumed: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Units of one kind. `name` is the module that produces them (unique in the network); `exact`: removing one gives
    the output of the network in which it is 0, else `why` says what reads more than the unit itself. `least` units must
    stay."""

    name: str
    units: tuple[Unit, ...]
    exact: bool
    why: str = ""
    least: int = 1


@dataclass(frozen=True, slots=True)
class Fixed:
    """What cannot be removed: `units` outputs of the module `name`, because of `operator` in the module `at`."""

    name: str
    units: int
    operator: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Factor:
    """A width: `size`, less `per` positions for every unit that is removed of a group."""

    size: int
    per: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Product:
    """Multiply-accumulates: a constant times widths."""

    constant: int
    factors: tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups of a network, in the order of its computation, and what is fixed. `seconds`: what tracing took;
    `products`: what is multiplied, of the inputs that the network was traced with."""

    groups: tuple[Group, ...]
    fixed: tuple[Fixed, ...]
    seconds: float
    products: tuple[Product, ...] = ()
