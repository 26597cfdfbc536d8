"""Options in a data reference: `folder:DIR?size=32&skip=unreadable`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from nas_core.config import Config, validate
from nas_core.errors import UsageError, unknown

C = TypeVar("C", bound=Config)


def options(scheme: str, argument: str, known: type[C]) -> tuple[str, C]:
    """`DIR?size=32&skip=unreadable` -> `("DIR", known(size=32, skip="unreadable"))`.

    An argument that is a path as it stands, question mark and all, has no options. Raises UsageError for an option
    that is unknown, has no value or another kind of value, or is given twice.
    """
    if "?" not in argument or Path(argument).expanduser().exists():
        return argument, known()
    # A value may be a question mark, as in missing=?, so options begin where the first name and = follow one.
    start = re.search(r"\?(?=\w+=)", argument)
    place = start.start() if start else argument.rindex("?")
    where, query = argument[:place], argument[place + 1 :]
    what = f"data '{written(scheme, argument)}'"
    found: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if name not in known.model_fields:
            raise UsageError(f"{what}: {unknown('option', name, known.model_fields)}")
        if not equals or not value:
            raise UsageError(f"{what}: option '{name}' has no value; write {name}=VALUE")
        if name in found:
            raise UsageError(f"{what}: option '{name}' is given twice")
        found[name] = value
    return where, validate(known, found, what)


def written(scheme: str, argument: str) -> str:
    """The reference as a user writes it: `graph:FILE?labels=renumber`, `sbm-cluster?graphs=40`."""
    return f"{scheme}{':' if scheme and not argument.startswith('?') else ''}{argument}"
