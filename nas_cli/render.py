"""What commands print on stdout: aligned text in a pipe, rich tables on a terminal, or one JSON document."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from nas_cli.output import data, write

FANCY_ROWS = 1_000  # rich lays out a few thousand rows per second; longer tables are plain

_PLAIN = str.maketrans({"≤": "<=", "≥": ">=", "…": "..."} | dict(zip("●─│├┤┼┴╰╯←×–±", "*-|++++`'<x-~", strict=True)))


def emit(*lines: str) -> None:
    """Print lines; characters that stdout cannot encode become plain ones. Flushes, so that a closed pipe shows."""
    text = "\n".join(lines) + "\n"
    encoding = data().encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    write(text)


def document(value: list[Any] | Mapping[str, Any]) -> None:
    """Print one JSON document: numbers in full precision, `nan`, `inf` and `-inf` as texts.

    One element of a list, or one key of a mapping, per line: for people, and for tools that read lines.
    """
    if isinstance(value, list):
        lines, ends = [json.dumps(_jsonable(element)) for element in value], "[]"
    else:
        lines, ends = [f"{json.dumps(str(key))}: {json.dumps(_jsonable(one))}" for key, one in value.items()], "{}"
    emit(ends[0], ",\n".join(lines), ends[1]) if lines else emit(ends)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> None:
    """Print rows under their heads; the columns named in `right` are aligned to the right.

    Nothing is cut: in a pipe a row is one line however long, on a terminal long cells wrap.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    aligned = [head in set(right) for head in heads]
    if data().isatty() and len(cells) <= FANCY_ROWS:
        emit(_fancy(heads, cells, aligned))
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in (heads, *cells):
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, aligned, strict=True)
        )
        emit("  ".join(padded).rstrip())


def pairs(entries: Mapping[str, str | None], indent: str = "") -> None:
    """Print names and values below one another; entries without a value are left out."""
    shown = {name: clean(value) for name, value in entries.items() if value}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        emit(f"{indent}{name:<{width}}  {value}".rstrip())


def clean(text: str) -> str:
    """One line without control characters: stored texts hold messages of whatever code a user ran."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def number(value: float | None) -> str:
    """`0.98125`, `1,531,546`, `nan`; empty for None."""
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.6g}"


def count(value: int) -> str:
    """`15,625`, and `5.2E+31` where nobody would read the digits."""
    return f"{value:,}" if value < 10**12 else f"{Decimal(value):.1E}"


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as local date and time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def first_line(text: str | None) -> str:
    """The first paragraph's first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return paragraph if len(paragraph) <= 160 else paragraph[:159].rsplit(" ", 1)[0] + " ..."


def _fancy(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    layout = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head, to_right in zip(heads, right, strict=True):
        layout.add_column(Text(head), justify="right" if to_right else "left", overflow="fold")
    for row in rows:
        layout.add_row(*(Text(cell) for cell in row))
    console = Console(file=data())
    with console.capture() as capture:
        console.print(layout)
    return capture.get().rstrip("\n")


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(entry) for entry in value]
    return value.hex() if isinstance(value, bytes | memoryview) else str(value)
