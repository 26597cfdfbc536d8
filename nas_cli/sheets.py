"""Rows of a query as files that other tools read: CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

CSV, PARQUET = "csv", "parquet"
FORMATS = (CSV, PARQUET)
BATCH = 10_000  # rows that are held at a time
INSTALL = "--format parquet needs pyarrow; run: pip install 'nas-search[parquet]'"


def check(format: str | None, out: Path | None) -> str | None:
    """The format that is meant: the one that is given, or that of the file's name. Raises UsageError where there is
    none, where Parquet has no file, and for a file that cannot be there."""
    from nas_core.errors import UsageError, unknown

    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if out is not None:
        suffix = out.suffix.lower().removeprefix(".")
        if format is None and suffix not in FORMATS:
            raise UsageError(f"--out '{out}': a table's name ends in .csv or .parquet, or --format says what it is")
        if not out.parent.is_dir():
            raise UsageError(f"--out '{out}': there is no folder '{out.parent}'")
        return format or suffix
    if format == PARQUET:
        raise UsageError("--format parquet is no text; name a file for it: --out FILE.parquet")
    return format


def lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """CSV as of RFC 4180 but for line ends, in pieces: heads first, nothing for NULL, numbers with all of their digits,
    bytes in hexadecimal digits."""
    yield _text([columns])
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield _text([["" if cell is None else _cell(cell) for cell in row] for row in batch])


def _text(rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _cell(cell: Any) -> Any:
    return cell.hex() if isinstance(cell, bytes) else cell


def parquet(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """The file. A column of several types is one of texts. Raises MachineError without pyarrow."""
    from nas_core.errors import MachineError

    try:
        import pyarrow
        from pyarrow import parquet as file
    except ImportError:
        raise MachineError(INSTALL) from None
    values: list[list[Any]] = [[] for _ in columns]
    for row in rows:
        for column, cell in zip(values, row, strict=True):
            column.append(cell)

    def typed(column: list[Any]) -> Any:
        try:
            return pyarrow.array(column)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            return pyarrow.array([None if cell is None else str(_cell(cell)) for cell in column], pyarrow.string())

    table = pyarrow.Table.from_arrays([typed(column) for column in values], names=list(columns))
    stream = io.BytesIO()
    file.write_table(table, stream)
    return stream.getvalue()
