"""Values as people read them: what commands, reports and the dashboard share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXACT = 1e15  # whole numbers below are written with all of their digits


@dataclass(frozen=True, slots=True)
class Rounded:
    """A number with the text that people read."""

    value: float
    text: str


Cell = str | float | Rounded | None


def shown(cell: Cell) -> str:
    """A cell of a table as people read it."""
    if isinstance(cell, Rounded):
        return cell.text
    return clean(cell) if isinstance(cell, str) else number(cell)


def clean(text: str) -> str:
    """One line without control characters: stored texts hold messages of whatever code a user ran."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def number(value: float | None) -> str:
    """`0.98125`, `1,531,546`, `nan`; empty for None."""
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < EXACT:
        return f"{int(value):,}"
    return f"{value:.6g}"


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as local date and time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float | None) -> str:
    """`0.52 s`, `47 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`: two units are enough."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s" if round(seconds, 2) < 60 else "1 min"
    whole = round(seconds)
    for unit, size, next_unit, next_size in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size:,} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def within(middle: float, half: float) -> str:
    """`0.912 ± 0.004`: to the second digit of what follows the ±; where that is 0 or not known, six digits."""
    if not math.isfinite(half):
        return f"{middle:.6g}"
    if half == 0:
        return f"{middle:.6g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{middle:.{digits}f} ± {half:.{digits}f}"


def shape(extents: Sequence[int]) -> str:
    """`3 x 32 x 32`."""
    return " x ".join(map(str, extents))


def settings_text(values: Mapping[str, Any]) -> str:
    """`population=20 sample=5`; what is not set is left out."""
    return " ".join(f"{name}={value_text(value)}" for name, value in values.items() if value is not None)


def value_text(value: Any) -> str:
    """A setting's value: a text as it is, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def budget_text(trials: int | None, seconds: float | None, evaluated: int) -> str:
    """`17/100`, `17 in 60 s`, or both."""
    of_trials = f"/{trials:,}" if trials is not None else ""
    in_seconds = f" in {seconds:g} s" if seconds is not None else ""
    return f"{evaluated:,}{of_trials}{in_seconds}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 node`, `2,000 nodes`, `3 searches`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
