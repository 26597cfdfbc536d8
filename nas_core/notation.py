"""Architectures as text: `NAME=VALUE` per choice, which several spaces read alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nas_core.choice import Choice, Value


def pairs(text: str, parts: Iterable[str], before: Mapping[str, str] | None = None) -> dict[str, str]:
    """What parts of a text say, after what it has said `before`. Raises ValueError for a part that is no `NAME=VALUE`,
    and for a name that comes twice."""
    given = dict(before or {})
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name in given:
            raise ValueError(f"'{text}': '{part.strip()}' is no choice with its value, or comes twice; NAME=VALUE,...")
        given[name] = value
    return given


def cut(text: str, at: str) -> list[str]:
    """What lies between the characters `at` of a text, but for those in brackets, without blanks around it: names of
    operators may have options, `gat(heads=4)`."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character == "(") - (character == ")")
        if character in at and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def words(text: str) -> list[str]:
    """What blanks outside of brackets separate."""
    return [word for word in cut(text, " \t\n") if word]


def chosen(
    text: str, choices: Sequence[Choice], given: Mapping[str, str], fixed: Mapping[str, Value]
) -> dict[str, Value]:
    """The values of all choices that are active, `fixed` ones taken as chosen. Raises ValueError for a value that is
    missing or none of the options, and for names that are no active choice."""
    values, rest = dict[str, Value](), dict(given)
    for choice in choices:
        if not choice.active({**fixed, **values}):
            continue
        known = {str(option): option for option in choice.options}
        if rest.get(choice.name) not in known:
            said = f"is '{rest[choice.name]}'" if choice.name in rest else "is missing"
            raise ValueError(f"'{text}': {choice.name} {said}; it is one of {', '.join(known)}")
        values[choice.name] = known[rest.pop(choice.name)]
    if rest:
        raise ValueError(f"'{text}': there is no choice {', '.join(rest)} in it")
    return values
