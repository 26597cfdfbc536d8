"""One call of an operator, as a rule gets it, and what rules answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from compressors.groups.walk import Axis, Dim, Value, Walk


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


def stay(walk: Walk, dims: Sequence[Dim], text: str) -> None:
    for dim in dims:
        walk.fix(dim, text)


def equal_positions(walk: Walk, dim: Dim, groups: int) -> Dim:
    """The same positions of equal parts of a dimension can only go together."""
    if isinstance(dim, Axis):
        parts = dim.ids.reshape(groups, -1)
        for part in parts[1:]:
            walk.unite(parts[0], part)
    return dim
