"""The table evaluator: looks candidates up in a csv file of recorded results.

A mapping file (`table_mapping.py`, `tables/*.yaml`, docs/tables.md) says how a row names its architecture
and which columns hold what; nothing about a particular table is written here.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy

from nas_core import tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.errors import NotFoundError, TrialError, UsageError, nearest, unknown
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report
from nas_core.space import HasNotation, SearchSpace
from nas_core.strategy import Proposal
from training.evaluators.table_mapping import Column, Row, TableMapping, find_mapping

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Table:
    """Evaluates by look-up: one report per candidate, with the recorded metrics, costs and seconds.

    `file` is a csv file with a header line, gzip-compressed or not; `data` one of the data sets that the
    mapping describes. Without `mapping`: the file beside the table, or the shipped one for its name.
    A budget must be one of the table's fidelity levels; none means the highest.
    Raises NotFoundError for a missing file, UsageError for a file, mapping and space that do not fit together.
    `evaluate` raises TrialError `no-row` and `no-value`.
    """

    deterministic = True
    in_process = True

    def __init__(self, space: SearchSpace, file: Path, data: str, mapping: str | Path | None = None) -> None:
        self.file = Path(file)
        if not self.file.is_file():
            raise NotFoundError(f"there is no table '{file}'")
        self.mapping_file = find_mapping(self.file, mapping)
        self._mapping = TableMapping.load(self.mapping_file)
        self._space = space
        if self._mapping.space != space.name:
            raise UsageError(
                f"mapping '{self.mapping_file.name}' describes space '{self._mapping.space}', not '{space.name}'"
            )
        if data not in self._mapping.data:
            raise unknown(f"data set of table '{self.file.name}'", data, self._mapping.data)
        self._data = self._mapping.data[data]
        self.task = self._data.task
        self.metrics = (
            *(Metric(name, one.goal, one.unit) for name, one in self._data.metrics.items()),
            *(Metric(name, one.goal, one.unit, cost=True) for name, one in self._data.costs.items()),
        )
        levels = self._data.levels
        self.fidelity = Fidelity(self._mapping.unit, levels[0], levels[-1], levels) if levels else None
        self._load()

    def identity(self, arch: Architecture) -> str:
        """What a row belongs to: an architecture, or a class of architectures of one identity."""
        return self._key(arch)

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """The recorded costs among `names`; those without a value are left out."""
        row = self._rows.get(self._key(arch))
        if row is None:
            return {}
        found = {name: float(self._costs[name][row]) for name in names if name in self._costs}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        level = self._level(budget)
        key = self._key(proposal.arch)
        row = self._rows.get(key)
        if row is None:
            raise TrialError("no-row", f"table '{self.file.name}' has no row for {key}")
        values = {name: float(column[row]) for name, column in self._values[level].items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrialError("no-value", f"table '{self.file.name}' has no {name} for {key}")
        seconds = float(self._seconds[row]) if self._seconds is not None else 0.0
        if self._data.seconds is not None and self._data.seconds.per_unit and level is not None:
            seconds *= level
        yield Report(1.0 if level is None else level, values, seconds if math.isfinite(seconds) else 0.0)

    @property
    def timed(self) -> bool:
        """Whether the table records how long an evaluation took."""
        return self._seconds is not None

    def column(self, metric: str, budget: Budget | None = None) -> NDArray[numpy.float64]:
        """A metric of all rows at a level (None: the highest), in the order of the file; NaN where a cell is empty."""
        return self._values[self._level(budget)][metric]

    def _level(self, budget: Budget | None) -> float | None:
        levels = self._data.levels
        if budget is None:
            return levels[-1] if levels else None
        if budget in levels:
            return levels[levels.index(budget)]
        known = f"it has {', '.join(f'{level:g}' for level in levels)}" if levels else "it has one level only"
        raise UsageError(f"table '{self.file.name}' has no values at {budget:g} {self._mapping.unit}; {known}")

    def _load(self) -> None:
        """Read the needed columns: `_rows` (key -> row) and arrays of floats, NaN where a cell is empty."""
        data = self._data
        levels: tuple[float | None, ...] = data.levels or (None,)
        wanted = {(name, level): metric.at(level) for level in levels for name, metric in data.metrics.items()}
        numbers: list[Column] = [*wanted.values(), *data.costs.values(), *([data.seconds] if data.seconds else [])]
        names = [*self._mapping.row.columns, *(number.column for number in numbers)]
        cells = list(zip(*_read(self.file, names), strict=True))
        width = len(self._mapping.row.columns)
        arrays = [_numbers(self.file, number, column) for number, column in zip(numbers, cells[width:], strict=True)]
        by_name = dict(zip(wanted, arrays, strict=False))
        self._costs = dict(zip(data.costs, arrays[len(wanted) :], strict=False))
        self._values = {level: {name: by_name[name, level] for name in data.metrics} | self._costs for level in levels}
        self._seconds = arrays[-1] if data.seconds else None
        parse = _parser(self._space, self._mapping.row, self.mapping_file)
        self._key: Callable[[Architecture], str] = self._space.identity
        if self._mapping.match == "architecture":
            self._key = self._space.to_text if isinstance(self._space, HasNotation) else lambda arch: arch.key
        self._rows = self._index(parse, list(zip(*cells[:width], strict=True)))

    def _index(self, parse: Callable[[tuple[str, ...]], Architecture], names: list[tuple[str, ...]]) -> dict[str, int]:
        by_text = self._mapping.match == "architecture" and self._mapping.row.text is not None
        rows: dict[str, int] = {}
        for row, name in enumerate(names):
            # Official text is the key itself: the first row shows whether it is written as the space writes it.
            if by_text and row:
                key = name[0]
            else:
                try:
                    key = self._key(parse(name))
                except ValueError as error:
                    raise UsageError(f"table '{self.file}', row {row + 1}: {error}") from None
                if by_text and key != name[0]:
                    raise UsageError(f"table '{self.file}', row 1: '{name[0]}' is written '{key}' by the space")
            if key in rows:
                raise UsageError(f"table '{self.file}': rows {rows[key] + 1} and {row + 1} both describe {key}")
            rows[key] = row
        return rows


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
