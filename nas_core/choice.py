"""Choices: the named, finite decisions that make up a search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class When:
    """A condition: choice `name` is active and has one of `values`."""

    name: str
    values: tuple[Value, ...]

    def holds(self, values: Mapping[str, Value]) -> bool:
        return self.name in values and values[self.name] in self.values


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision with a finite set of options, all of one type.

    `name` is a storage format: a stable path such as `cell/edge.0-2`. `kind` groups choices of one
    meaning, which may share embeddings and heads. `when` lists the conditions that must all hold for
    the choice to be active; they name earlier choices. `ordered` says that neighbouring options are
    similar (a grid of numbers).

    Raises ValueError for an empty name, no options, options of several types, or repeated options.
    """

    name: str
    options: tuple[Value, ...]
    kind: str = ""
    when: tuple[When, ...] = ()
    ordered: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a choice needs a name")
        if not self.options:
            raise ValueError(f"choice '{self.name}' has no options")
        types = {type(option) for option in self.options}
        if len(types) != 1 or not issubclass(next(iter(types)), (str, int, float, bool)):
            names = sorted(t.__name__ for t in types)
            raise ValueError(f"choice '{self.name}' mixes option types {names}; use one of str, int, float, bool")
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"choice '{self.name}' repeats an option: {self.options}")

    def active(self, values: Mapping[str, Value]) -> bool:
        """Whether every condition holds, given the values of the choices made so far."""
        return all(condition.holds(values) for condition in self.when)

    def index(self, value: Value) -> int:
        """Position of `value` among the options; ValueError when it is none of them (or of another type)."""
        for position, option in enumerate(self.options):
            if option == value and type(option) is type(value):
                return position
        raise ValueError(f"'{value}' is not an option of choice '{self.name}' {self.options}")
