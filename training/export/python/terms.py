"""How a module is made, as data: literals, calls of constructors, containers, and the parameters of a class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

Role = Literal["in", "out", "width", "other"]
"""What a number counts: channels that come in, that go out, either of them, or something else."""


class Unwritable(Exception):
    """The network cannot be written as source of its own; the message says which part of it, and why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A literal."""

    value: Any

    def __str__(self) -> str:
        return literal(self.value)


@dataclass(frozen=True, slots=True)
class Name:
    """A parameter of the class that is being written, or an expression of several."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a constructor. It is left out where it equals the default."""

    name: str
    term: Term
    default: Term | None = None
    positional: bool = False
    role: Role = "other"


@dataclass(frozen=True, slots=True)
class Build:
    """A call of a class."""

    callee: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        return f"{self.callee}({', '.join(self.written())})"

    def written(self) -> Iterator[str]:
        """The arguments as they are written: by position where they have one and none before is left out."""
        positional = True
        for argument in self.arguments:
            if argument.term == argument.default:
                positional = False
                continue
            positional &= argument.positional
            yield str(argument.term) if positional else f"{argument.name}={argument.term}"


@dataclass(frozen=True, slots=True)
class Group:
    """`nn.Sequential`, `nn.ModuleList` or `nn.ModuleDict` of modules by their names."""

    callee: str
    items: tuple[tuple[str, Term], ...]

    def __str__(self) -> str:
        if self.callee == "nn.ModuleDict":
            return f"nn.ModuleDict({{{', '.join(f'{literal(name)}: {item}' for name, item in self.items)}}})"
        if self.callee == "nn.ModuleList":
            items = list(sequence(self.items))
            one_run = len(items) == 1 and items[0].startswith("*")
            return f"nn.ModuleList{items[0].removeprefix('*')}" if one_run else f"nn.ModuleList([{', '.join(items)}])"
        return f"{self.callee}({', '.join(sequence(self.items))})"


Term = Value | Name | Build | Group


def sequence(items: Sequence[tuple[str, Term]]) -> Iterator[str]:
    """Modules that are numbered from 0; equal ones in a row are written once."""
    names = [name for name, _ in items]
    if names != [str(number) for number in range(len(items))]:
        pairs = ", ".join(f"({literal(name)}, {item})" for name, item in items)
        yield f"OrderedDict([{pairs}])"
        return
    for text, run in groupby(str(item) for _, item in items):
        count = len(list(run))
        if count > 2:
            yield f"*({text} for _ in range({count}))"
        else:
            yield from [text] * count


def is_literal(value: Any) -> bool:
    """Whether `literal` writes the value."""
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(is_literal, value))
    if isinstance(value, dict):
        return all(is_literal(key) and is_literal(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str, bytes)


def literal(value: Any) -> str:
    """The value as source; strings in double quotes."""
    if type(value) is str:
        return json.dumps(value, ensure_ascii=False)
    if type(value) is float and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    if type(value) is tuple:
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    if type(value) is list:
        return f"[{', '.join(map(literal, value))}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    return repr(value)
