"""The architectures that are scored together, and the results that their scores are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError, unknown
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.task import Task
from studies.analysis.queries import MEASURED
from studies.records import Study
from studies.store.store import Store
from training.evaluators.rows import Rows, open_mapping
from training.evaluators.table_mapping import Column, TableMapping

COUNTED = 100_000  # spaces up to this size are counted, to tell a sample that cannot be drawn


@dataclass(frozen=True, slots=True)
class Target:
    """Results of architectures: `values` by key, higher is better; `shown` turns one back to how it was measured.

    `task` is what they were measured on, where that is known.
    """

    metric: str
    source: str
    values: Mapping[str, float]
    minimised: bool = False
    task: Task | None = None

    def shown(self, key: str) -> float | None:
        value = self.values.get(key)
        return None if value is None else -value if self.minimised else value


def sample(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """So many different architectures, each drawn choice by choice. Raises UsageError where the space has fewer."""
    if count < 1:
        raise UsageError(f"--sample {count}: draw at least 1")
    rng = generator(seed, "pool")
    size = moves.size(space, COUNTED)
    if size is not None and count > size:
        raise UsageError(f"--sample {count}: space '{space.name}' has {size:,} architectures")
    if size is not None and size <= COUNTED and 2 * count > size:
        every = list(moves.enumerate_all(space))
        return [every[index] for index in rng.permutation(size)[:count]]
    found: dict[str, Architecture] = {}
    for _ in range(100 * count):
        arch = moves.sample(space, rng)
        found.setdefault(arch.key, arch)
        if len(found) == count:
            return list(found.values())
    raise UsageError(f"--sample {count}: {100 * count:,} draws gave {len(found):,} different architectures; take fewer")


def of_study(store: Store, study: Study) -> tuple[list[Architecture], Target]:
    """What a study has evaluated at its largest budget, with the first objective; the first of equal ones.

    Raises NotFoundError for a study without any.
    """
    runs = [run for run in store.trials(study) if run.state in MEASURED and run.verdict.values]
    if not runs:
        raise NotFoundError(f"study '{study.name}' has no complete trial yet")
    budgets = [math.inf if run.proposal.budget is None else run.proposal.budget for run in runs]
    archs: dict[str, Architecture] = {}
    values: dict[str, float] = {}
    for run, budget in zip(runs, budgets, strict=True):
        if budget == max(budgets) and run.arch.key not in archs:
            assert run.verdict.values
            archs[run.arch.key] = run.arch
            values[run.arch.key] = run.verdict.values[0]
    metric, _, goal = study.spec.objectives[0].rpartition(":")
    return list(archs.values()), Target(metric, f"study {study.name}", values, goal == "min", study.spec.task)


def from_table(
    space: SearchSpace,
    archs: Sequence[Architecture],
    file: Path,
    against: str,
    data: str | None = None,
    mapping: str | None = None,
) -> Target:
    """A metric of the table's mapping at its highest level, or a column of the file as it is.

    `data` is a data set of the mapping; None: its first. What has no row, or an empty cell, has no value. Raises
    NotFoundError for a missing file, UsageError for what the table does not hold.
    """
    path, found = open_mapping(space, file, mapping)
    if data is not None and data not in found.data:
        raise unknown(f"data set of table '{file.name}'", data, found.data)
    name = data if data is not None else next(iter(found.data), None)
    column, minimised, mapped = _column(found, name, against)
    rows = Rows(space, file, path, found, [column])
    values: dict[str, float] = {}
    for arch in archs:
        row = rows.find(arch)
        if row is not None and not math.isnan(value := float(rows.columns[0][row])):
            values[arch.key] = -value if minimised else value
    source = f"table {file.name}" + (f", {name}" if mapped and name else "")
    return Target(against, source, values, minimised, None if name is None else found.data[name].task)


def _column(mapping: TableMapping, data: str | None, against: str) -> tuple[Column, bool, bool]:
    """Where `against` is, whether less of it is better, and whether the mapping knows it."""
    known = None if data is None else mapping.data[data]
    if known is not None and against in known.metrics:
        metric = known.metrics[against]
        return metric.at(known.levels[-1] if known.levels else None), metric.goal == "min", True
    costs = {**mapping.costs, **(known.costs if known is not None else {})}
    if against in costs:  # as it is: scores that grow with it correlate positively
        return Column(**costs[against].model_dump(include={"column", "scale", "offset"})), False, True
    return Column(column=against), False, False
