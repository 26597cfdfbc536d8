"""Plain data out of JSON that somebody else may have written, and what counts as text.

JSON makes no objects, but a text can be nested deeper than Python recurses, and hold numbers that it will not print.
"""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100  # lists and mappings within one another
DIGITS = 1_000  # of a whole number
DEEP = f"it is nested more than {DEEPEST} levels deep"


def from_json(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError that says in words what is wrong with it."""
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(DEEP) from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(DEEP)
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [value for values in inner for value in values]
    return value


def is_text(name: str) -> bool:
    """Whether a name of a file, which is any bytes, or an argument is text that can be stored and written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"it holds a whole number of {len(digits):,} digits")
    return int(digits)
