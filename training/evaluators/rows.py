"""Rows of a csv file, found by the architecture that they describe."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy

from nas_core import tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.errors import NotFoundError, UsageError, nearest, unknown
from nas_core.space import HasNotation, SearchSpace
from training.evaluators.table_mapping import Column, Row, TableMapping, find_mapping

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_mapping(space: SearchSpace, file: Path, mapping: str | Path | None) -> tuple[Path, TableMapping]:
    """The mapping file of a table, and what it says.

    Raises NotFoundError for a missing table or mapping, UsageError where the mapping is malformed, or another space's.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no table '{file}'")
    path = find_mapping(file, mapping)
    found = TableMapping.load(path)
    if found.space != space.name:
        raise UsageError(f"mapping '{path.name}' describes space '{found.space}', not '{space.name}'")
    return path, found


class Rows:
    """The rows by architecture, and `columns` as arrays of floats in the order asked for, NaN where a cell is empty.

    Raises UsageError for a file, mapping and space that do not fit together.
    """

    def __init__(
        self, space: SearchSpace, file: Path, mapping_file: Path, mapping: TableMapping, columns: Sequence[Column]
    ) -> None:
        names = [*mapping.row.columns, *(column.column for column in columns)]
        cells = list(zip(*_read(file, names), strict=True))
        width = len(mapping.row.columns)
        self.columns = [_numbers(file, column, found) for column, found in zip(columns, cells[width:], strict=True)]
        parse = _parser(space, mapping.row, mapping_file)
        self.key: Callable[[Architecture], str] = space.identity
        if mapping.match == "architecture":
            self.key = space.to_text if isinstance(space, HasNotation) else lambda arch: arch.key
        by_text = mapping.match == "architecture" and mapping.row.text is not None
        self._place: Callable[[Architecture], Hashable] = self.key
        self._rows: Mapping[Hashable, int] | None = None
        if mapping.match == "architecture" and mapping.row.choices:
            self._rows = _by_values(space, list(mapping.row.choices), cells[:width])
        if self._rows is None:
            self._rows = self._index(file, parse, list(zip(*cells[:width], strict=True)), by_text)
        else:
            self._place = _values

    def find(self, arch: Architecture) -> int | None:
        """The position of its row in the columns."""
        assert self._rows is not None
        return self._rows.get(self._place(arch))

    def _index(
        self, file: Path, parse: Callable[[tuple[str, ...]], Architecture], names: list[tuple[str, ...]], by_text: bool
    ) -> dict[Hashable, int]:
        rows: dict[Hashable, int] = {}
        for row, name in enumerate(names):
            # Official text is the key itself: the first row shows whether it is written as the space writes it.
            if by_text and row:
                key = name[0]
            else:
                try:
                    key = self.key(parse(name))
                except ValueError as error:
                    raise UsageError(f"table '{file}', row {row + 1}: {error}") from None
                if by_text and key != name[0]:
                    raise UsageError(f"table '{file}', row 1: '{name[0]}' is written '{key}' by the space")
            if key in rows:
                twins = [] if by_text else [parse(names[rows[key]]), parse(name)]
                what = "; ".join(dict.fromkeys(map(_choices, twins)))
                if key not in {arch.key for arch in twins}:
                    what = f"{key} ({what})" if what else key
                raise UsageError(f"table '{file}': rows {rows[key] + 1} and {row + 1} both describe {what}")
            rows[key] = row
        return rows


def _values(arch: Architecture) -> tuple[Value, ...]:
    return tuple(arch.values.values())


def _by_values(
    space: SearchSpace, names: Sequence[str], cells: Sequence[Sequence[str]]
) -> Mapping[Hashable, int] | None:
    """The rows by the values of all choices, column by column, where every combination is legal and every cell is an
    option as it is written; None where rows must be looked at one by one, to read them or to say what is wrong."""
    free = all(not choice.when for choice in space.choices) and type(space).allowed is SearchSpace.allowed
    if not free or type(space).illegal is not SearchSpace.illegal or {c.name for c in space.choices} != set(names):
        return None
    by_name = dict(zip(names, cells, strict=True))
    columns = []
    for choice in space.choices:
        known = {str(option): option for option in choice.options}
        try:
            columns.append([known[cell] for cell in by_name[choice.name]])
        except KeyError:
            return None
    found: dict[Hashable, int] = {values: row for row, values in enumerate(zip(*columns, strict=True))}
    return found if len(found) == len(columns[0]) else None


def _choices(arch: Architecture) -> str:
    return ", ".join(f"{name}={value}" for name, value in arch.values.items())


def _read(file: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells of the named columns, row by row. Raises UsageError."""
    try:
        with _open(file) as lines:
            reader = csv.reader(lines, strict=True)
            header = next(reader, [])
            if not header:
                raise UsageError(f"table '{file}' is empty")
            for name in names:
                if header.count(name) > 1:
                    raise UsageError(f"table '{file}' has {header.count(name)} columns '{name}'; rename all but one")
                if name not in header:
                    raise UsageError(
                        f"table '{file}' has no column '{name}'{nearest(name, header)} (it has {_some(header)})"
                    )
            pick = itemgetter(*(header.index(name) for name in names))
            rows = []
            for row in reader:
                if len(row) != len(header) and row:
                    raise UsageError(
                        f"table '{file}', line {reader.line_num}: {len(row)} cells, but the header has {len(header)}"
                    )
                if row:
                    rows.append(pick(row))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"table '{file}' is not a readable csv file: {reason}") from None
    if not rows:
        raise UsageError(f"table '{file}' has no rows")
    return rows


def _open(file: Path) -> TextIO:
    with file.open("rb") as start:
        compressed = start.read(2) == b"\x1f\x8b"
    # utf-8-sig: a byte order mark, which some spreadsheets write, is no part of the first column's name.
    if compressed:
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _some(names: Sequence[str], limit: int = 30) -> str:
    return ", ".join(name[:40] for name in names[:limit]) + (", ..." if len(names) > limit else "")


def _numbers(file: Path, column: Column, cells: Sequence[str]) -> NDArray[numpy.float64]:
    """Cell * scale + offset, computed in decimals so that 91.61 percent is the fraction 0.9161 and no other."""
    scale, offset = Decimal(str(column.scale)), Decimal(str(column.offset))
    try:
        if scale == 1 and offset == 0:
            return numpy.array([float(cell) if cell else math.nan for cell in cells])
        return numpy.array([float(Decimal(cell) * scale + offset) if cell else math.nan for cell in cells])
    except (ValueError, InvalidOperation):
        row, cell = next((row, cell) for row, cell in enumerate(cells) if cell and not _is_number(cell))
        raise UsageError(f"table '{file}', row {row + 1}: column '{column.column}' holds '{cell}', no number") from None


def _is_number(cell: str) -> bool:
    try:
        Decimal(cell)
    except InvalidOperation:
        return False
    return True


def _parser(space: SearchSpace, row: Row, mapping: Path) -> Callable[[tuple[str, ...]], Architecture]:
    """How the cells that name a row become its architecture; the result raises ValueError."""
    if row.text is not None:
        if not isinstance(space, HasNotation):
            raise UsageError(f"mapping '{mapping}': space '{space.name}' has no text form; use choices or tokens")
        from_text = space.from_text
        return lambda cells: from_text(cells[0])
    if row.tokens is not None:
        return lambda cells: tokens.decode(space, _tokens(cells[0], len(space.choices), row.first))
    choices = {choice.name: choice for choice in space.choices}
    order = list(row.choices or {})
    for name in order:
        if name not in choices:
            raise unknown(f"choice of space '{space.name}' in mapping '{mapping}'", name, choices)
    missing = [name for name in choices if name not in order]
    if missing:
        raise UsageError(f"mapping '{mapping}' gives no column for {', '.join(missing)} of space '{space.name}'")
    options = {name: {str(option): option for option in choice.options} for name, choice in choices.items()}

    def parse(cells: tuple[str, ...]) -> Architecture:
        given = dict(zip(order, cells, strict=True))
        values = {
            name: options[name][given[name]] if given[name] in options[name] else _number(choice, given[name])
            for name, choice in choices.items()
            if given[name]
        }
        arch = Architecture(space.name, values)
        reason = space.illegal(arch)
        if reason:
            raise ValueError(reason)
        return arch

    return parse


def _tokens(cell: str, count: int, first: int) -> list[int]:
    """`"3,0,1"`, `"3 0 1"` and `"301"` are the same tokens."""
    words = cell.replace(",", " ").split()
    if len(words) == 1 and count > 1:
        words = list(words[0])
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"'{cell}' is no list of tokens")
    return [int(word) + 1 - first for word in words]


def _number(choice: Choice, cell: str) -> Value:
    """The option that equals a number written in another way, such as `3.0` for 3."""
    for option in choice.options:
        if type(option) in (int, float) and _is_number(cell) and float(cell) == option:
            return option
    raise ValueError(f"'{cell}' is not an option of choice '{choice.name}' {choice.options}")
