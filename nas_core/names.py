"""Names that people give: of studies and benches. They become file names and parts of addresses."""

from __future__ import annotations

import re

LONGEST = 200
_ODD = re.compile(r"[^A-Za-z0-9._-]")


def study_name(name: str) -> str:
    """The name. Raises ValueError that says in words what is wrong with it."""
    return _checked(name, LONGEST)


def bench_name(name: str) -> str:
    """The same, shorter: its studies are named after it."""
    return _checked(name, LONGEST // 2)


def stem(text: str) -> str:
    """What a name that is made up begins with: the text, with '-' for what names may not have."""
    return _ODD.sub("-", text).lstrip("._-")[: LONGEST // 2 - 20] or "study"


def _checked(name: str, longest: int) -> str:
    allowed = f"a name has up to {longest} of the letters A-Z and a-z, digits, '.', '_' and '-'"
    if not name:
        raise ValueError(f"it is empty; {allowed}")
    odd = _ODD.search(name)
    if odd:
        raise ValueError(f"{_character(odd[0])} is not allowed; {allowed}")
    if not name[0].isalnum():
        raise ValueError(f"it begins with '{name[0]}'; begin it with a letter or a digit")
    if len(name) > longest:
        raise ValueError(f"it is {len(name)} characters long; {allowed}")
    return name


def _character(letter: str) -> str:
    return "a space" if letter == " " else f"'{letter}'" if letter.isprintable() else "a control character"
