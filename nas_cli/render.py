"""What commands print on stdout. They say what, `Output` decides how: rich tables on a terminal, tab-separated values
with all digits where no person looks, one JSON document where that is asked for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Literal, TextIO

from nas_cli.output import data, write
from reports.texts import EXACT, Cell, Rounded, clean, moment, number, shown

__all__ = ["Cell", "Rounded", "clean", "moment", "number"]  # of those that are handed on

NARROW = 16  # characters that a column on a terminal has at least, where its cells wrap
BATCH = 200  # lines that are written at a time
FANCY_ROWS = 1_000  # rich lays out a few thousand rows per second; longer tables are plain


_PLAIN = str.maketrans({"≤": "<=", "≥": ">=", "…": "..."} | dict(zip("●─│├┤┼┴╰╯←×–±", "*-|++++`'<x-~", strict=True)))


class Output:
    """The data of a command, on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.for_people = stream.isatty()

    def emit(self, *lines: str) -> None:
        """Print lines; characters that the stream cannot encode become plain ones. Flushes, so that a closed pipe
        shows."""
        text = "\n".join(lines) + "\n"
        encoding = self.stream.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
        write(text)

    def document(self, value: Iterable[Any] | Mapping[str, Any]) -> None:
        """Print one JSON document: numbers in full precision, `nan`, `inf` and `-inf` as texts.

        One element of a list, or one key of a mapping, per line: for people, and for tools that read lines. What is
        iterated is printed as it comes.
        """
        if isinstance(value, Mapping):
            ends, lines = "{}", (f"{json.dumps(str(key))}: {json.dumps(_jsonable(one))}" for key, one in value.items())
        else:
            ends, lines = "[]", (json.dumps(_jsonable(element)) for element in value)
        first = next(lines, None)
        if first is None:
            self.emit(ends)
            return
        self._emit_all(chain([ends[0]], _separated(first, lines), [ends[1]]))

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        right: Iterable[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        """Print rows under their heads: texts, numbers, and None for nothing.

        In a pipe a row is one line of tab-separated values, numbers with all of their digits. On a terminal numbers
        are rounded, the columns named in `right` are aligned to the right, and the longest cells wrap; where that is
        not enough, the columns `spare` are left out, one after the other, and named on stderr.
        """
        if not self.for_people:
            self._emit_all("\t".join(map(_value, row)) for row in chain([heads], rows))
            return
        cells = [[shown(cell) for cell in row] for row in rows]
        aligned = [head in set(right) for head in heads]
        if len(cells) > FANCY_ROWS:
            self._plain(heads, cells, aligned)
            return
        width = self._width()
        left_out = _left_out(heads, cells, spare, width)
        kept = [place for place, head in enumerate(heads) if head not in left_out]
        left = [[row[place] for place in kept] for row in (heads, *cells)]
        self.emit(self._fancy(left[0], left[1:], [aligned[place] for place in kept], width))
        if left_out:
            print(f"too narrow for {', '.join(left_out)}: make it wider, or see them all by '| cat'", file=sys.stderr)

    def pairs(self, entries: Mapping[str, str | None], indent: str = "") -> None:
        """Print names and values below one another; entries without a value are left out."""
        shown = {name: clean(value) for name, value in entries.items() if value}
        width = max(map(len, shown), default=0)
        for name, value in shown.items():
            self.emit(f"{indent}{name:<{width}}  {value}".rstrip())

    def _emit_all(self, lines: Iterator[str]) -> None:
        """Print lines as they come: the first at once, others some at a time."""
        size = 1
        while some := list(islice(lines, size)):
            self.emit(*some)
            size = BATCH

    def _plain(self, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            padded = (
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            )
            self.emit("  ".join(padded).rstrip())

    def _width(self) -> int:
        from rich.console import Console

        return Console(file=self.stream).width

    def _fancy(self, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], width: int) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        layout = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        wrapping = _wrapping(list(_widths(heads, rows).values()), width)
        for place, (head, to_right) in enumerate(zip(heads, right, strict=True)):
            justify: Literal["left", "right"] = "right" if to_right else "left"
            layout.add_column(Text(head), justify=justify, overflow="fold", no_wrap=place not in wrapping)
        for row in rows:
            layout.add_row(*(Text(cell) for cell in row))
        console = Console(file=self.stream, width=width)
        with console.capture() as capture:
            console.print(layout)
        return capture.get().rstrip("\n")


def emit(*lines: str) -> None:
    """Print lines: see `Output.emit`."""
    Output(data()).emit(*lines)


def for_people() -> bool:
    """Whether a person looks: see `Output.for_people`."""
    return Output(data()).for_people


def document(value: Iterable[Any] | Mapping[str, Any]) -> None:
    """Print one JSON document: see `Output.document`."""
    Output(data()).document(value)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], right: Iterable[str] = (), spare: Sequence[str] = ()
) -> None:
    """Print rows under their heads: see `Output.table`."""
    Output(data()).table(heads, rows, right, spare)


def pairs(entries: Mapping[str, str | None], indent: str = "") -> None:
    """Print names and values below one another: see `Output.pairs`."""
    Output(data()).pairs(entries, indent)


def count(value: int) -> str:
    """`15,625`, and `5.2E+31` where nobody would read the digits."""
    return f"{value:,}" if value < 10**12 else f"{Decimal(value):.1E}"


def first_line(text: str | None) -> str:
    """The first paragraph's first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return paragraph if len(paragraph) <= 160 else paragraph[:159].rsplit(" ", 1)[0] + " ..."


def _separated(line: str, lines: Iterator[str]) -> Iterator[str]:
    """Lines with commas between them."""
    for following in lines:
        yield f"{line},"
        line = following
    yield line


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, int]:
    return {head: max(map(len, (head, *column))) for head, *column in zip(heads, *rows, strict=True)}


def _left_out(heads: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int) -> list[str]:
    """The spare columns that a terminal has no room for, where the others have at least `NARROW` each."""
    widths = _widths(heads, rows)
    left_out: list[str] = []
    for head in spare:
        kept = [min(one, NARROW) if head not in spare else one for head, one in widths.items() if head not in left_out]
        if sum(kept) + 2 * len(kept) <= width:
            break
        left_out.append(head)
    return left_out


def _wrapping(widths: Sequence[int], width: int) -> set[int]:
    """The columns whose cells wrap: as few as possible, the widest, with at least `NARROW` for each."""
    order = sorted(range(len(widths)), key=lambda place: -widths[place])
    room = width - sum(widths) - 2 * len(widths)
    wrapping: set[int] = set()
    for place in order:
        if room >= 0:
            break
        wrapping.add(place)
        room += max(widths[place] - NARROW, 0)
    return wrapping


def _value(cell: Cell) -> str:
    """A cell as programs read it."""
    if cell is None or isinstance(cell, str):
        return clean(cell or "")
    value = float(cell.value if isinstance(cell, Rounded) else cell)
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)


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
