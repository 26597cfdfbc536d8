"""A table of costs beside an evaluator, such as the latencies of devices on which nobody trains."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Budget, Context, Evaluator, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from training.evaluators.kinds import opened
from training.evaluators.rows import Rows, open_mapping
from training.evaluators.settings import EvaluatorSettings, Facts, Opened, Problem, Request, Settled
from training.evaluators.table_mapping import hashed
from training.evaluators.wrapping import WrapperOptions, WrapperSettings


class CostTable:
    """Costs by architecture: the `costs` of a mapping that hold for every data set.

    `file`: a csv file with a header line, gzip-compressed or not. Without `mapping`: the file beside the table, or the
    shipped one for its name. Raises NotFoundError for a missing file, UsageError for a file, mapping and space that
    do not fit together.
    """

    def __init__(self, space: SearchSpace, file: Path, mapping: str | Path | None = None) -> None:
        self.file = Path(file)
        self.mapping_file, found = open_mapping(space, self.file, mapping)
        if not found.costs:
            raise UsageError(
                f"mapping '{self.mapping_file.name}' has no costs beside those of its data sets; "
                "docs/tables.md shows a table of costs"
            )
        self.metrics = tuple(column.metric(name) for name, column in found.costs.items())
        self._rows = Rows(space, self.file, self.mapping_file, found, list(found.costs.values()))
        self._columns = dict(zip(found.costs, self._rows.columns, strict=True))

    def check(self, arch: Architecture) -> None:
        """Raises TrialError `no-row` where nothing is known about the architecture."""
        if self._rows.find(arch) is None:
            raise TrialError("no-row", f"table of costs '{self.file.name}' has no row for {self._rows.key(arch)}")

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """The recorded costs among `names`; those without a value are left out."""
        row = self._rows.find(arch)
        if row is None:
            return {}
        found = {name: float(self._columns[name][row]) for name in names if name in self._columns}
        return {name: value for name, value in found.items() if math.isfinite(value)}


class CostTableSettings(WrapperSettings):
    """The evaluator of `inner`, whose candidates also have the costs of a table, such as latencies."""

    kind: Literal["cost-table"] = "cost-table"
    costs: str

    @property
    def facts(self) -> Facts:
        return replace(self.inner.facts, costs=self.costs)

    def costs_at(self, place: str) -> EvaluatorSettings:
        return self.model_copy(update={"costs": place})


class CostTableOptions(WrapperOptions):
    """What a configuration asks of a table of costs."""

    kind: Literal["cost-table"] = "cost-table"
    costs: str = Field(description="table with more cost metrics")

    def settle(self, request: Request) -> Settled:
        settings, evaluator, read = self.inner.settle(request)
        outer = CostTableSettings(inner=settings, costs=self.costs)
        return Settled(outer, *_joined(Opened(evaluator, read), outer, request.problem))


def _joined(inner: Opened, settings: CostTableSettings, problem: Problem) -> Opened:
    table = CostTable(problem.space, Path(settings.costs))
    content = inner.read.encode() + table.file.read_bytes() + hashed(table.mapping_file)
    return Opened(Joined(inner.evaluator, table), hashlib.sha256(content).hexdigest()[:16])


class Joined:
    """An evaluator whose candidates also have the costs of a table. In all else it is that evaluator.

    Raises UsageError where both give a metric of one name. `evaluate` raises TrialError `no-row` for an architecture
    that the table of costs does not hold, before anything is spent on it.
    """

    Settings = CostTableSettings
    Options = CostTableOptions

    @classmethod
    def open(cls, settings: CostTableSettings, problem: Problem) -> Opened:
        """Raises like this class, `CostTable` and the inner evaluator."""
        return _joined(opened(settings.inner, problem), settings, problem)

    def __init__(self, evaluator: Evaluator, table: CostTable) -> None:
        self._evaluator = evaluator
        self._table = table
        both = {metric.name for metric in evaluator.metrics} & {metric.name for metric in table.metrics}
        if both:
            raise UsageError(
                f"table '{table.file.name}' and the evaluator both give {', '.join(sorted(both))}; "
                f"rename it in the mapping '{table.mapping_file.name}'"
            )
        self.metrics = (*evaluator.metrics, *table.metrics)
        self.fidelity = evaluator.fidelity
        self.deterministic = evaluator.deterministic
        self.in_process = evaluator.in_process

    def __getattr__(self, name: str) -> Any:
        """What else an evaluator has, such as its task or its device."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._evaluator, name)

    def identity(self, arch: Architecture) -> str | None:
        return self._evaluator.identity(arch)

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Those of the evaluator, and the recorded ones."""
        recorded = self._table.costs(arch, names)
        own = {metric.name for metric in self._evaluator.metrics}
        return {**self._evaluator.costs(arch, [name for name in names if name in own]), **recorded}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        self._table.check(proposal.arch)
        yield from self._evaluator.evaluate(proposal, budget, context)
