"""Weights of candidates as text: a shade per candidate, and the strongest ones over the epochs."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_core.choice import Value
    from nas_core.records import Epoch
    from studies.analysis.operations import Operations, Strengths

SHADES = " .:-=+*#%@"
COLUMNS = 60  # epochs of a path that are shown
GAP = 3  # between two columns of lines


def shade(weight: float) -> str:
    """A character that is the darker, the larger the weight (0 to 1)."""
    return SHADES[round(min(max(weight, 0.0), 1.0) * (len(SHADES) - 1))]


def letters(options: Sequence[str]) -> tuple[str, ...]:
    """A character for each candidate: its initial; of those with one initial only the shortest has it, the others have
    a character that tells them apart from these."""
    initials: dict[str, list[str]] = {}
    for option in options:
        initials.setdefault(option[:1], []).append(option)
    found = {min(same, key=len): initial for initial, same in initials.items() if initial}
    for option in options:
        if option in found:
            continue
        others = set("".join(other for other in initials[option[:1]] if other != option))
        own = [letter for letter in option if letter not in others]
        wanted = [*own, option[:1].upper(), *option, *string.ascii_letters, *string.digits]
        taken = set(found.values())
        found[option] = next((letter for letter in wanted if letter.isalnum() and letter not in taken), "?")
    return tuple(found[option] for option in options)


def legend(options: Operations) -> list[str]:
    """The candidates with their letters, in the order of the shades; a line for all groups that have the same."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, of_group in options.items():
        groups.setdefault(of_group, []).append(name)
    lines = []
    for of_group, names in groups.items():
        words = ", ".join(f"{letter} {option}" for letter, option in zip(letters(of_group), of_group, strict=True))
        lines.append(words if len(groups) == 1 else f"{names[0]}{', ...' if len(names) > 1 else ''}: {words}")
    return lines


def heat_map(
    strengths: Strengths, options: Operations, taken: Mapping[str, Value | None] | None, heads: bool = True
) -> list[str]:
    """A line per group: its name, a shade per candidate, the largest weight, and the candidate that the derived
    architecture takes (`-`: none; without one the strongest). `heads`: the letters above where they change."""
    width = max(map(len, strengths), default=0)
    lines = []
    before: tuple[str, ...] = ()
    for name, weights in strengths.items():
        if heads and options[name] != before:
            before = options[name]
            lines.append(f"{'':<{width}}  {''.join(letters(before))}")
        value = options[name][_strongest(weights)] if taken is None else taken.get(name)
        shades = "".join(map(shade, weights))
        lines.append(f"{name:<{width}} |{shades}| {max(weights):.2f} {'-' if value is None else value}")
    return lines


def path(epochs: Sequence[Epoch], options: Operations) -> list[str]:
    """A line per group: the letter of its strongest candidate, from the first epoch to the last, at most COLUMNS of
    them; below, where the derived architecture has changed."""
    shown = sample(epochs)
    width = max([*map(len, options), len("changed")])
    lines = []
    for name, of_group in options.items():
        marks = letters(of_group)
        row = "".join(marks[_strongest(epoch.strengths[name])] if name in epoch.strengths else " " for epoch in shown)
        lines.append(f"{name:<{width}}  {row}")
    changed = changes(epochs)
    if changed:
        ends = [0, *(epoch.number for epoch in shown)]
        row = "".join("*" if any(start < number <= end for number in changed) else "." for start, end in pairwise(ends))
        lines.append(f"{'changed':<{width}}  {row}")
    return lines


def sample(epochs: Sequence[Epoch]) -> list[Epoch]:
    """At most COLUMNS epochs, evenly, with the first and the last."""
    if len(epochs) <= COLUMNS:
        return list(epochs)
    return [epochs[round(column * (len(epochs) - 1) / (COLUMNS - 1))] for column in range(COLUMNS)]


def changes(epochs: Sequence[Epoch]) -> list[int]:
    """The numbers of the epochs that derived another architecture than the epoch before."""
    return [now.number for before, now in pairwise(epochs) if before.arch != now.arch]


def beside(lines: Sequence[str], width: int, height: int) -> Iterator[str]:
    """The lines in columns, from top to bottom, where there are more than `height`; of those that `width` has no room
    for, how many they are."""
    longest = max(map(len, lines), default=0)
    columns = max(min(math.ceil(len(lines) / max(height, 1)), (width + GAP) // (longest + GAP)), 1)
    rows = min(math.ceil(len(lines) / columns), max(height, 1))
    for row in range(rows):
        yield (" " * GAP).join(f"{line:<{longest}}" for line in lines[row : rows * columns : rows]).rstrip()
    if len(lines) > rows * columns:
        yield f"... {len(lines) - rows * columns} more"


def _strongest(weights: Sequence[float]) -> int:
    """The position of the largest weight, the first of equals."""
    return max(range(len(weights)), key=lambda position: weights[position])
