"""The cells of a csv file as texts, for training and for inference alike: blanks around them are stripped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import UsageError
from training.data.files import content

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Cells:
    """Rows of a file: a list of n texts per column, in the order of the file, and the line that each row ends in."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    unnamed: tuple[str, ...] = ()  # columns that the header leaves without a name

    def at(self, row: int) -> str:
        """Where a row is, to speak of it."""
        return f"{self.path}, line {self.lines[row]}"


def read(path: Path, header: bool = True) -> Cells:
    """The rows of a csv file, gzipped or not, in UTF-8, separated by commas; lines without a value are passed over.

    The first line names the columns; without a `header`, and where it has no name for one, they are c0, c1, ...
    Raises UsageError for a file without rows, a row that has more or fewer values than the first line, a name that
    occurs twice.
    """
    import pandas

    text = _decoded(path)
    lines, first = _lines(path, text)
    if not lines:
        raise UsageError(f"{path}: is empty; needed are rows of values, separated by commas")
    names = [name.strip() for name in first] if header else [""] * len(first)
    other = [word for mark, word in OTHER_SEPARATORS.items() if len(first) == 1 and mark in first[0]]
    if other:
        raise UsageError(f"{path}: has one column only, and {other[0]} in it; columns are separated by commas")
    unnamed = tuple(f"c{place}" for place, name in enumerate(names) if header and not name)
    names = [name or f"c{place}" for place, name in enumerate(names)]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise UsageError(f"{path}: two columns are called '{twice}'; give each a name of its own, or use header=no")
    if header and len(lines) == 1:
        raise UsageError(f"{path}: has a line of names and no rows")
    frame = pandas.read_csv(
        io.StringIO(text),
        header=0 if header else None,
        dtype=str,
        na_filter=False,
        skipinitialspace=True,
        index_col=False,
    )
    if len(frame) != len(lines) - header:
        raise UsageError(
            f"{path}: a row of its only column has no value, which is no row for some readers; take it out"
        )
    frame.columns = pandas.Index(names)
    columns = {name: frame[name].str.strip().tolist() for name in names}
    return Cells(path, columns, lines[header:], unnamed)


def _decoded(path: Path) -> str:
    raw = content(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: is no UTF-8 ({raw[error.start : error.end]!r}); save it so") from None


def _lines(path: Path, text: str) -> tuple[list[int], list[str]]:
    """The number of the line in which each row ends, and the first row. pandas fills rows that are too short, and
    takes what is too much for an index, in silence."""
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    lines: list[int] = []
    first: list[str] = []
    try:
        for row in reader:
            if len(row) <= 1 and not "".join(row).strip():
                continue
            first = first or row
            if len(row) != len(first):
                raise UsageError(
                    f"{path}, line {reader.line_num}: {len(row)} values, and {len(first)} in the first line; a value "
                    "that holds a comma is written in double quotes"
                )
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: cannot be read ({error})") from None
    return lines, first
