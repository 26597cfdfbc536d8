"""Mapping files: how a row of a table names its architecture, and which columns hold what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from nas_core.config import Config, validate
from nas_core.errors import NotFoundError, UsageError, unknown
from nas_core.evaluation import Goal, Metric
from nas_core.task import Task
from training.yaml_text import from_yaml

SHIPPED = Path(__file__).parent / "tables"


class Column(Config):
    """A column of numbers; its value is cell * scale + offset."""

    column: str
    scale: float = 1.0
    offset: float = 0.0


class MetricColumns(Config):
    """A metric: one `column`, or one per fidelity level."""

    column: str | None = None
    columns: dict[float, str] = Field(default_factory=dict, description="fidelity level -> column")
    scale: float = 1.0
    offset: float = 0.0
    goal: Goal = "max"
    unit: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.column is None) == (not self.columns):
            raise ValueError("give either column, or columns by fidelity level")
        return self

    def at(self, level: float | None) -> Column:
        name = self.columns[level] if level is not None else self.column
        return Column(column=str(name), scale=self.scale, offset=self.offset)


class CostColumn(Column):
    """A property of the architecture, known before it is evaluated."""

    goal: Goal = "min"
    unit: str = ""

    def metric(self, name: str) -> Metric:
        return Metric(name, self.goal, self.unit, cost=True)


class SecondsColumn(Column):
    """The recorded duration of an evaluation; `per_unit`: of one unit of fidelity, such as an epoch."""

    per_unit: bool = False


class DataSet(Config):
    """What a table knows about one data set."""

    task: Task
    metrics: dict[str, MetricColumns] = Field(min_length=1)
    costs: dict[str, CostColumn] = Field(default_factory=dict)
    seconds: SecondsColumn | None = None

    @property
    def levels(self) -> tuple[float, ...]:
        """The fidelity levels, ascending; empty where the table has none."""
        return tuple(sorted(next(iter(self.metrics.values())).columns))

    @model_validator(mode="after")
    def _same_levels(self) -> Self:
        if any(set(metric.columns) != set(self.levels) for metric in self.metrics.values()):
            raise ValueError(f"every metric must have the same fidelity levels; they are {self._levels_by_metric()}")
        if not self.levels and self.seconds is not None and self.seconds.per_unit:
            raise ValueError("seconds per unit need metrics with fidelity levels")
        return self

    def _levels_by_metric(self) -> str:
        return ", ".join(f"{name}: {sorted(metric.columns)}" for name, metric in self.metrics.items())


class Row(Config):
    """How a row names its architecture; exactly one of the three."""

    text: str | None = Field(None, description="column with the space's official text, as `to_text` writes it")
    choices: dict[str, str] | None = Field(None, description="choice -> column; an empty cell is an inactive choice")
    tokens: str | None = Field(None, description="column with one integer per choice, or digits without separators")
    first: Literal[0, 1] = Field(1, description="token of an option list's first option; 1 leaves 0 for inactive")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.text, self.choices, self.tokens)) != 1:
            raise ValueError("give exactly one of text, choices, tokens")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.choices.values()) if self.choices else (str(self.text or self.tokens),)


class TableMapping(Config):
    """A mapping file; docs/tables.md explains it."""

    files: tuple[str, ...] = Field((), description="names of the table files it fits")
    space: str
    size: str | dict[str, Any] | None = Field(
        None, description="of the networks whose results were recorded: a preset, changes to one, or the fields"
    )
    match: Literal["architecture", "identity"] = Field(
        "architecture", description="whether a row belongs to one architecture, or to all with the same identity"
    )
    row: Row
    unit: str = Field("epochs", description="unit of the fidelity levels")
    costs: dict[str, CostColumn] = Field(default_factory=dict, description="those that no data set changes")
    data: dict[str, DataSet] = Field(default_factory=dict)
    scores: dict[str, dict[str, Column]] = Field(
        default_factory=dict, description="data set -> predictor -> column of its scores, higher is better"
    )

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.data and not self.costs and not self.scores:
            raise ValueError("give data, costs or scores")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises NotFoundError for a missing file and UsageError for a malformed one."""
        try:
            content = from_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFoundError(f"there is no mapping file '{path}'") from None
        except OSError as error:
            raise UsageError(f"mapping '{path}' cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"mapping '{path}' is not yaml: {str(error)[:200]}") from None
        if not isinstance(content, dict):
            raise UsageError(f"mapping '{path}' holds no keys; docs/tables.md shows one")
        return validate(cls, content, f"mapping '{path}'")


def hashed(path: Path) -> bytes:
    """What a mapping file says about the values of a table, for a hash of both. The line `size` came later, and a study
    keeps what it says itself."""
    return re.sub(rb"(?m)^size:.*\n", b"", path.read_bytes())


def find_mapping(table: Path, mapping: str | Path | None) -> Path:
    """The mapping file of a table: as given (a path, or a shipped name), else the `.yaml` file of the same
    name beside the table, else the shipped one that fits the table's name. Raises UsageError."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if mapping is not None:
        if Path(mapping).suffix in (".yaml", ".yml"):
            return Path(mapping)
        if str(mapping) not in shipped:
            raise unknown("mapping", str(mapping), [*shipped, "or the path of a .yaml file"])
        return shipped[str(mapping)]
    beside = table.with_name(table.name.removesuffix(".gz").removesuffix(".csv") + ".yaml")
    if beside.is_file():
        return beside
    known = {name: path for path in shipped.values() for name in TableMapping.load(path).files}
    if table.name not in known:
        raise UsageError(
            f"table '{table}' has no mapping: there is no '{beside.name}' beside it, and the shipped ones fit "
            f"{', '.join(known)}; docs/tables.md shows how to write one"
        )
    return known[table.name]
