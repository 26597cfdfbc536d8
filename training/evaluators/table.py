"""The table evaluator: looks candidates up in a csv file of recorded results.

A mapping file (`table_mapping.py`, `tables/*.yaml`, docs/tables.md) says how a row names its architecture
and which columns hold what; nothing about a particular table is written here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import TrialError, UsageError, unknown
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from training.evaluators.rows import Rows, open_mapping
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Facts, Opened, Problem, Request, Settled
from training.evaluators.table_mapping import Column, hashed
from training.reading import once

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class TableSettings(EvaluatorSettings):
    """What `Table` is opened from. `level` is the budget of proposals that name none; None: the highest."""

    kind: Literal["table"] = "table"
    table: str
    data: str
    mapping: str | None = None
    level: int | None = None

    @property
    def facts(self) -> Facts:
        return Facts(data=self.data, looks_up=True, level=self.level, trial_seconds=self.trial_seconds)

    def at(self, place: str) -> EvaluatorSettings:
        return self.model_copy(update={"table": place})


class TableOptions(EvaluatorOptions):
    """What a configuration asks of `Table`."""

    earlier_keys: ClassVar[Mapping[str, str]] = {**EvaluatorOptions.earlier_keys, "epochs": "level"}

    kind: Literal["table"] = "table"
    table: str | None = Field(default=None, description="csv file in which results are looked up")
    data: str = Field(default="digits", description="which data set of the table")
    mapping: str | None = Field(default=None, description="what the columns of the table are; by default beside it")
    level: int | None = Field(default=None, ge=1, description="of the table's budgets; by default the highest")

    def settle(self, request: Request) -> Settled:
        if self.table is None:
            raise UsageError("the table evaluator needs --table FILE (csv or csv.gz)")
        settings = TableSettings(
            table=self.table,
            data=self.data,
            mapping=self.mapping,
            level=self.level,
            trial_seconds=self.trial_seconds,
        )
        evaluator, read = Table.open(settings, request.problem)
        if self.level is not None:
            levels = evaluator.fidelity.levels if evaluator.fidelity else ()
            if self.level not in levels:
                known = ", ".join(f"{level:g}" for level in levels) or "one level"
                raise UsageError(f"--epochs {self.level}: the table has {known}")
        return Settled(settings, evaluator, read)


class Table:
    """Evaluates by look-up: one report per candidate, with the recorded metrics, costs and seconds.

    `file` is a csv file with a header line, gzip-compressed or not; `data` one of the data sets that the
    mapping describes. Without `mapping`: the file beside the table, or the shipped one for its name.
    A budget must be one of the table's fidelity levels; none means the highest.
    Raises NotFoundError for a missing file, UsageError for a file, mapping and space that do not fit together.
    `evaluate` raises TrialError `no-row` and `no-value`.
    """

    Settings = TableSettings
    Options = TableOptions

    deterministic = True
    in_process = True

    @classmethod
    def open(cls, settings: TableSettings, problem: Problem) -> Opened:
        """Raises like the class. While a command reads, a table is read once."""
        space, asked = problem.space, (settings.table, settings.data, settings.mapping)
        key = ("table", id(space), asked, Path.cwd())
        table = once(key, lambda: cls(space, Path(settings.table), settings.data, settings.mapping))
        content = table.file.read_bytes() + hashed(table.mapping_file) + settings.data.encode()
        return Opened(table, hashlib.sha256(content).hexdigest()[:16])

    def __init__(self, space: SearchSpace, file: Path, data: str, mapping: str | Path | None = None) -> None:
        self.file = Path(file)
        self.mapping_file, self._mapping = open_mapping(space, self.file, mapping)
        self._space = space
        if not self._mapping.data:
            raise UsageError(f"table '{self.file.name}' has costs only; give it by --costs, beside what is evaluated")
        if data not in self._mapping.data:
            raise unknown(f"data set of table '{self.file.name}'", data, self._mapping.data)
        self._data = self._mapping.data[data]
        self._cost_columns = self._mapping.costs | self._data.costs
        self.task = self._data.task
        self.recorded_size = self._recorded_size()
        self.metrics = (
            *(Metric(name, one.goal, one.unit) for name, one in self._data.metrics.items()),
            *(one.metric(name) for name, one in self._cost_columns.items()),
        )
        levels = self._data.levels
        self.fidelity = Fidelity(self._mapping.unit, levels[0], levels[-1], levels) if levels else None
        self._load()

    def identity(self, arch: Architecture) -> str:
        """What a row belongs to: an architecture, or a class of architectures of one identity."""
        return self._rows.key(arch)

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """The recorded costs among `names`; those without a value are left out."""
        row = self._rows.find(arch)
        if row is None:
            return {}
        found = {name: float(self._costs[name][row]) for name in names if name in self._costs}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        level = self._level(budget)
        row = self._rows.find(proposal.arch)
        if row is None:
            raise TrialError("no-row", f"table '{self.file.name}' has no row for {self.identity(proposal.arch)}")
        values = {name: float(column[row]) for name, column in self._values[level].items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrialError(
                    "no-value", f"table '{self.file.name}' has no {name} for {self.identity(proposal.arch)}"
                )
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

    def _recorded_size(self) -> SizeConfig | None:
        """The size of the networks whose results the table holds, where its mapping says it."""
        if self._mapping.size is None:
            return None
        try:
            return self._space.Size.parse(self._mapping.size).fitted(self.task)
        except UsageError as error:
            raise UsageError(f"mapping '{self.mapping_file.name}': {error}") from None

    def _level(self, budget: Budget | None) -> float | None:
        levels = self._data.levels
        if budget is None:
            return levels[-1] if levels else None
        if budget in levels:
            return levels[levels.index(budget)]
        known = f"it has {', '.join(f'{level:g}' for level in levels)}" if levels else "it has one level only"
        raise UsageError(f"table '{self.file.name}' has no values at {budget:g} {self._mapping.unit}; {known}")

    def _load(self) -> None:
        """Read the needed columns."""
        data, costs = self._data, self._cost_columns
        levels: tuple[float | None, ...] = data.levels or (None,)
        wanted = {(name, level): metric.at(level) for level in levels for name, metric in data.metrics.items()}
        numbers: list[Column] = [*wanted.values(), *costs.values(), *([data.seconds] if data.seconds else [])]
        self._rows = Rows(self._space, self.file, self.mapping_file, self._mapping, numbers)
        arrays = self._rows.columns
        by_name = dict(zip(wanted, arrays, strict=False))
        self._costs = dict(zip(costs, arrays[len(wanted) :], strict=False))
        self._values = {level: {name: by_name[name, level] for name in data.metrics} | self._costs for level in levels}
        self._seconds = arrays[-1] if data.seconds else None
