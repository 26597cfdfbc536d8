"""What the instances of a class have in common, with parameters where they differ (anti-unification, Plotkin 1970)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from training.export.python.terms import Argument, Build, Group, Name, Role, Term, Value

Record = tuple[tuple[str, Term], ...]
"""How a block is made: its parts by their names, in order."""


MOST_WIDTHS = 3
"""A block that occurs once and has more widths than these is written with its numbers inside."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class, with what each instance gives for it."""

    name: str
    values: tuple[Term, ...]
    role: Role
    default: Term | None = None

    @property
    def signature(self) -> str:
        default = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.annotation}{default}"

    @property
    def annotation(self) -> str:
        kinds = {_annotation(value) for value in self.values}
        if kinds == {"int", "float"}:
            return "float"
        return " | ".join(sorted(kinds - {"None"})) + (" | None" if "None" in kinds else "")


def _annotation(term: Term) -> str:
    if not isinstance(term, Value):
        return "nn.Module"
    if isinstance(term.value, tuple):
        return f"tuple[{', '.join(type(item).__name__ for item in term.value)}]"
    return "None" if term.value is None else type(term.value).__name__


def shape(record: Record) -> Any:
    """Equal for blocks that one class can make: the same parts, and the same kinds of modules in containers. A part
    that stands alone may be of any kind; it is handed to the constructor."""
    return tuple((name, _shape(term) if isinstance(term, Group) else None) for name, term in record)


def _shape(term: Term) -> Any:
    if isinstance(term, Group):
        return term.callee, tuple((name, _shape(item)) for name, item in term.items)
    return term.callee if isinstance(term, Build) else None


@dataclass
class _Hole:
    values: tuple[Term, ...]
    places: list[tuple[str, Argument | None]] = field(default_factory=list)


def unify(records: Sequence[Record]) -> tuple[Record, list[Parameter]]:
    """The record of the class, and its parameters: numbers of channels first, those with a default last."""
    record, parameters = _unified(records, widths=True)
    if len(records) == 1 and len(parameters) > MOST_WIDTHS:
        return _unified(records, widths=False)
    return record, parameters


def _unified(records: Sequence[Record], widths: bool) -> tuple[Record, list[Parameter]]:
    holes: dict[tuple[Term, ...], _Hole] = {}

    def common(terms: Sequence[Term], part: str, argument: Argument | None) -> Term:
        first = terms[0]
        # How wide its layers are is said where a block is used, also where it always is the same.
        wide = widths and argument is not None and argument.role != "other" and isinstance(first, Value)
        if not wide and not isinstance(first, Build | Group) and all(term == first for term in terms):
            return first
        if isinstance(first, Build) and _alike(terms):
            arguments = zip(*(term.arguments for term in terms if isinstance(term, Build)), strict=True)
            return Build(first.callee, tuple(_common_argument(each, part) for each in arguments))
        if isinstance(first, Group) and all(_shape(term) == _shape(first) for term in terms):
            items = zip(*(term.items for term in terms if isinstance(term, Group)), strict=True)
            return Group(
                first.callee,
                tuple((each[0][0], common([item for _, item in each], f"{part}.{each[0][0]}", None)) for each in items),
            )
        hole = holes.setdefault(tuple(terms), _Hole(tuple(terms)))
        hole.places.append((part, argument))
        return Name(f"?{list(holes).index(tuple(terms))}")

    def _common_argument(each: Sequence[Argument], part: str) -> Argument:
        default = each[0].default if len({argument.default for argument in each}) == 1 else None
        first = replace(each[0], default=default)
        return replace(first, term=common([argument.term for argument in each], part, first))

    template = [
        (name, common([record[position][1] for record in records], name, None))
        for position, (name, _) in enumerate(records[0])
    ]
    names = _names(list(holes.values()))
    derived = _derived(list(holes.values()), names)
    written = {f"?{number}": derived.get(number, names[number]) for number in range(len(holes))}
    parameters = [
        Parameter(names[number], hole.values, _role(hole), _default(hole))
        for number, hole in enumerate(holes.values())
        if number not in derived
    ]
    parameters.sort(key=lambda parameter: (parameter.default is not None, parameter.role == "other"))
    return tuple((name, put(term, written)) for name, term in template), parameters


def _alike(terms: Sequence[Term]) -> bool:
    calls = {
        (term.callee, tuple(argument.name for argument in term.arguments)) if isinstance(term, Build) else None
        for term in terms
    }
    return len(calls) == 1 and None not in calls


def put(term: Term, names: Mapping[str, str]) -> Term:
    """The term with other names for its holes."""
    if isinstance(term, Name):
        return Name(names.get(term.text, term.text))
    if isinstance(term, Build):
        return replace(term, arguments=tuple(replace(each, term=put(each.term, names)) for each in term.arguments))
    if isinstance(term, Group):
        return replace(term, items=tuple((name, put(item, names)) for name, item in term.items))
    return term


def _role(hole: _Hole) -> Role:
    roles = {argument.role for _, argument in hole.places if argument is not None} - {"other"}
    if not roles or any(argument is None for _, argument in hole.places):
        return "other"
    if {"in", "out"} <= roles:
        return "width"
    return next((role for role in ("in", "out") if role in roles), "width")


def _default(hole: _Hole) -> Term | None:
    """The default of the layers that the parameter is for, where some instance has it."""
    defaults = {argument.default if argument else None for _, argument in hole.places}
    default = defaults.pop()
    return default if not defaults and default in hole.values and _role(hole) == "other" else None


def _names(holes: Sequence[_Hole]) -> list[str]:
    """After what they are in PyTorch; where two would be the same, with the part of the block that has it."""
    wishes = []
    roles = [_role(hole) for hole in holes]
    for hole, role in zip(holes, roles, strict=True):
        part, argument = hole.places[0]
        if argument is None:
            wishes.append(_identifier(part))
            continue
        own = [place.name for _, place in hole.places if place is not None]
        unit = "features" if all(name.endswith("features") and name != "num_features" for name in own) else "channels"
        normed = "out" in roles and all(place is not None and place.role == "width" for _, place in hole.places)
        by_role = {"in": f"in_{unit}", "out": f"out_{unit}", "width": f"out_{unit}" if normed else unit}
        wishes.append(by_role.get(role, own[0]))
    names = list(wishes)
    for wish, count in Counter(wishes).items():
        if count == 1:
            continue
        same = [number for number, each in enumerate(wishes) if each == wish]
        kept = same[-1] if wish.startswith("out_") else same[0]
        for number in same:
            if number != kept:
                part = _identifier(holes[number].places[0][0])
                names[number] = f"{part}_{wish.removeprefix('out_').removeprefix('in_')}"
    for number, name in enumerate(names):
        count = 1
        while names[number] in names[:number]:
            count += 1
            names[number] = f"{name}{count}"
    return names


def _identifier(part: str) -> str:
    name = re.sub(r"\W", "_", part.split(".")[0])
    return name if name.isidentifier() else "inner"


def _derived(holes: Sequence[_Hole], names: Sequence[str]) -> dict[int, str]:
    """Paddings that keep the resolution, written as such."""
    found: dict[int, str] = {}
    by_name = dict(zip(names, holes, strict=True))
    kernels, dilations = by_name.get("kernel_size"), by_name.get("dilation")
    for number, name in enumerate(names):
        if not name.endswith("padding") or kernels is None:
            continue
        values = [term.value for term in holes[number].values if isinstance(term, Value)]
        sizes = [term.value for term in kernels.values if isinstance(term, Value)]
        if not all(type(value) is int for value in (*values, *sizes)):
            continue
        if values == [size // 2 for size in sizes]:
            found[number] = "kernel_size // 2"
        elif dilations is not None:
            rates = [term.value for term in dilations.values if isinstance(term, Value)]
            if values == [rate * (size // 2) for rate, size in zip(rates, sizes, strict=True)]:
                found[number] = "dilation * (kernel_size // 2)"
    return found
