"""What is known of the values of a graph while it is walked: per dimension the rows and columns that it consists of.

Every row and column of every parameter and buffer has an id. A dimension of a value carries the ids of what produced
it, position by position (`Axis`), or nothing where its size does not come from parameters (batch, space, nodes of a
graph). Rules of operators (`compressors.groups.operators`) unite ids that can only be removed together, fix those that
must stay, and mark those whose removal changes more than the removed part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A dimension whose positions are rows or columns: `ids [size]`; `zero [size]`: whether the value is 0 there once
    all that the masked unit produces is 0."""

    ids: Ids
    zero: NDArray[np.bool_]


class Free(Enum):
    """`ELASTIC`: a dimension of a constant that is filled anew with whatever size the others have."""

    ELASTIC = "elastic"


ELASTIC = Free.ELASTIC
Dim: TypeAlias = Axis | Free | None
"""None: a size that does not change, whatever is removed."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the graph. `parameter`: computed of parameters alone; `zeros`: all of it is 0."""

    shape: tuple[int, ...]
    dims: tuple[Dim, ...]
    parameter: bool = False
    zeros: bool = False

    def axis(self, dim: int) -> Axis | None:
        found = self.dims[dim]
        return found if isinstance(found, Axis) else None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is fixed or not exact: the operator, the module it is run in, and a sentence."""

    operator: str
    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    ids: Ids
    reason: Reason


@dataclass(frozen=True, slots=True)
class Counted:
    """Multiply-accumulates of one operation: a product of a constant and of the sizes of axes."""

    constant: int
    axes: tuple[Ids, ...]


@dataclass(slots=True)
class Split:
    """A dimension with ids that a view splits into several: what it could go on as, by the number of the new one."""

    ids: Mapping[int, Ids]


@dataclass
class Walk:
    """What the rules write to. `choices`: by the name of the node of a view, which of its new dimensions goes on with
    the ids of the one that it splits; where there is none, each new one gets ids of its own and `splits` holds them, so
    that what happens to them later can decide."""

    choices: Mapping[str, int] | None = None
    size: int = 0
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    fixed: list[Event] = field(default_factory=list)
    inexact: list[Event] = field(default_factory=list)
    consumed: list[Ids] = field(default_factory=list)
    produced: list[Ids] = field(default_factory=list)
    still: list[Ids] = field(default_factory=list)
    tied: list[tuple[Ids, Ids]] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)
    undecided: bool = False
    operator: str = ""
    at: str = ""

    def fresh(self, size: int) -> Ids:
        found = np.arange(self.size, self.size + size, dtype=np.int64)
        self.size += size
        return found

    def unite(self, one: Ids, other: Ids) -> None:
        """Position by position."""
        self.pairs.append((one, other))

    def fix(self, dim: Dim, text: str) -> None:
        if isinstance(dim, Axis):
            self.fixed.append(Event(dim.ids, self.reason(text)))

    def produce(self, value: Value, dim: Dim) -> None:
        """A dimension of parameters that goes on in a value of others."""
        if value.parameter and isinstance(dim, Axis):
            self.produced.append(dim.ids)

    def leave(self, dims: Iterable[Dim]) -> None:
        """Dimensions of parameters that are nobody's width, such as those of kernels."""
        self.still.extend(dim.ids for dim in dims if isinstance(dim, Axis))

    def blur(self, ids: Ids, text: str) -> None:
        """Removing one of these ids gives another output than setting it to 0."""
        if len(ids):
            self.inexact.append(Event(ids, self.reason(text)))

    def reason(self, text: str) -> Reason:
        return Reason(self.operator, self.at, text)

    def constant(self, size: int, text: str) -> Ids:
        """Ids of positions that are no rows of parameters, and stay."""
        ids = self.fresh(size)
        self.fixed.append(Event(ids, self.reason(text)))
        return ids

    def count(self, constant: int, dims: Iterable[tuple[int, Dim]]) -> None:
        """One operation of as many multiply-accumulates as the product of the sizes says."""
        axes = []
        for size, dim in dims:
            if isinstance(dim, Axis):
                axes.append(dim.ids)
            else:
                constant *= size
        self.counted.append(Counted(constant, tuple(axes)))

    def contract(self, one: Dim, of_one: Value, other: Dim, of_other: Value) -> None:
        """Two dimensions over whose product is summed."""
        a, b = (dim if isinstance(dim, Axis) else None for dim in (one, other))
        if a is None or b is None:
            self.consumed.extend(
                axis.ids for axis, of in ((a, of_one), (b, of_other)) if axis is not None and of.parameter
            )
            if ELASTIC not in (one, other):
                self.fix(one if b is None else other, "is multiplied by something whose size stays")
            return
        self.unite(a.ids, b.ids)
        if of_one.parameter or of_other.parameter:
            weight, read = (a, b) if of_one.parameter else (b, a)
            self.consumed.append(weight.ids)
            self.blur(read.ids[~read.zero], "reads a value that is not 0 where the unit is")
        else:
            self.blur(a.ids, "sums over the width of a product, whose scale may depend on it")

    def joint(self, dims: Sequence[tuple[Dim, bool]], zero: NDArray[np.bool_] | None = None) -> Dim:
        """Dimensions of the same size that are combined position by position, with whether each belongs to a value of
        parameters alone. `zero`: what is known of the result, else where any of them is."""
        axes = [(dim, parameter) for dim, parameter in dims if isinstance(dim, Axis)]
        if any(dim is None for dim, _ in dims):
            for dim, _ in axes:
                self.fix(dim, "is combined with something whose size stays")
            return None
        if not axes:
            return ELASTIC if dims else None
        # What parameters alone make goes on with the ids of the first, so the others follow it.
        first = axes[0][0]
        for dim, _ in axes[1:]:
            self.unite(first.ids, dim.ids)
        if all(parameter for _, parameter in axes):
            self.tied.extend((first.ids, dim.ids) for dim, _ in axes[1:])
        return Axis(first.ids, np.any([dim.zero for dim, _ in axes], axis=0) if zero is None else zero)

    def classes(self) -> NDArray[np.int64]:
        """By id, the number of the set of ids that go together."""
        if not self.pairs:
            return np.arange(self.size, dtype=np.int64)
        one = np.concatenate([pair[0] for pair in self.pairs])
        other = np.concatenate([pair[1] for pair in self.pairs])
        links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(self.size, self.size))
        labels: Any = connected_components(links, directed=False)[1]
        return labels.astype(np.int64)
