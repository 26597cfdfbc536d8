"""What the parts of a data set are called where people name them: folders, attributes, keys of a mapping."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nas_core.errors import UsageError, nearest

NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
"""Spellings of each part, in lower case; any case is read."""

_EVERY = [name for names in NAMES.values() for name in names]
# Other words for a part. What they hold would be missed.
_OTHER = ("dev", "eval", "evaluation", "holdout", "hold-out", "hold_out")


def part_of(name: str) -> str | None:
    """The part that a name stands for: `train`, `valid`, `test`, or none."""
    return next((part for part, names in NAMES.items() if name.lower() in names), None)


def one_each(names: Iterable[str], where: str) -> dict[str, str]:
    """Part -> the name that stands for it. Raises UsageError for a part under two names."""
    found: dict[str, str] = {}
    for name in sorted(names):
        part = part_of(name)
        if part is None:
            continue
        if part in found:
            raise UsageError(f"{where} holds '{found[part]}' and '{name}', both of them the {part} part; keep one")
        found[part] = name
    return found


def refuse_lookalikes(names: Iterable[str], where: str) -> None:
    """Raises UsageError for a name beside the parts that must have been meant as one: `dev`, `tets`, `vaildation`."""
    for name in names:
        word = name.lower()
        if part_of(name):
            raise UsageError(f"{where} holds '{name}' without folders of classes; samples without a class have no use")
        if word in _OTHER or difflib.get_close_matches(word, _EVERY, n=1, cutoff=0.75):
            raise UsageError(
                f"{where} holds '{name}', which is no part of the data{nearest(word, _EVERY)} "
                f"(known: {', '.join(_EVERY)}); rename it or take it away"
            )
