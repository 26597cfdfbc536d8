"""What a bench compares, and on which landscape: everything that decides its result, as plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from pydantic import Field

import strategies
from nas_core import refs
from nas_core.config import Config, validate
from nas_core.errors import InfeasibleError, NotFoundError, UsageError, unknown
from nas_core.evaluation import Constraint, Objective
from nas_core.frozen import JsonObject
from nas_core.records import StopAt
from studies.records import StudySpec, as_stored
from studies.setup.assemble import StudyObjects, describe
from studies.setup.config import SearchConfig

if TYPE_CHECKING:
    from training.evaluators.table import Table

BASELINE = "random"
# Fields of the children's study that follow from other fields of the plan.
_FOLLOWS = {"strategy", "strategy_config", "seed", "lag", "ordering"}
TOP = 1_000  # the best row of every so many counts as the top
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Contender(Config):
    """A strategy and its settings."""

    strategy: str
    config: JsonObject


class Landscape(Config):
    """The searched column of the table, oriented so that higher is better, of the rows that satisfy the constraints.

    `mean`, and `test_mean` of the test column: what one candidate drawn blindly is expected to have. `threshold`: the
    value of the worst of the `top` best rows, one in a thousand. `full`: the budget of a full evaluation, None where
    the table has one level.
    """

    full: float | None
    rows: int
    optimum: float
    mean: float
    top: int
    threshold: float
    test_mean: float | None


class Plan(Config):
    """A bench's configuration, as it is stored. `problem` is the study that all children share, but for the strategy
    and the seed; seeds are 0, 1, ..., `seeds` - 1. `simulated`: whether the recorded seconds pass, for `workers`
    asynchronous workers."""

    problem: StudySpec
    contenders: dict[str, Contender]
    queries: int = Field(ge=1)
    seeds: int = Field(ge=1)
    workers: int = Field(ge=1)
    simulated: bool
    landscape: Landscape

    @property
    def objective(self) -> Objective:
        metric, _, goal = self.problem.objectives[0].partition(":")
        return Objective(metric, "max" if goal == "max" else "min")

    @property
    def baseline(self) -> str:
        """What the others are tested against: `random`, or the first contender."""
        return BASELINE if BASELINE in self.contenders else next(iter(self.contenders))

    @property
    def test_metric(self) -> str | None:
        """The metric that is reported of the incumbent; None where the table has none."""
        return None if self.landscape.test_mean is None else test_of(self.objective.metric)

    def cost(self, budget: float | None) -> float:
        """What an evaluation with this budget (None: the full one) costs in queries; a table continues nothing."""
        full = self.landscape.full
        return 1.0 if budget is None or full is None else budget / full

    @property
    def stop_at(self) -> StopAt:
        return StopAt(spent=self.queries)

    def children(self) -> Iterator[tuple[str, int]]:
        """(label, seed): one seed after the other, so that an unfinished bench has seeds that all have finished."""
        return ((label, seed) for seed in range(self.seeds) for label in self.contenders)

    def spec(self, label: str, seed: int) -> StudySpec:
        """The child study of a contender and a seed."""
        contender = self.contenders[label]
        return self.problem.model_copy(
            update={"strategy": contender.strategy, "strategy_config": contender.config, "seed": seed}
        )


def make(
    search: Mapping[str, Any],
    contenders: Sequence[str],
    settings: Mapping[str, Any],
    *,
    queries: int,
    seeds: int,
    workers: int,
    simulated: bool,
) -> Plan:
    """The plan for a user's wishes; `search` are keys of `SearchConfig` with the table, `contenders` are `STRATEGY` or
    `LABEL=STRATEGY`, `settings` their settings by label.

    Raises UsageError for whatever does not fit, with all strategies named that cannot search this space.
    """
    for name, value in {"queries": queries, "seeds": seeds, "workers": workers}.items():
        if value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    chosen = _contenders(contenders, settings)
    first = next(iter(chosen.values()))
    if "data" not in search:
        search = {**search, "data": _first_data(search)}
    wanted = validate(SearchConfig, {**search, "strategy": first.strategy, "strategy_config": first.config}, "bench")
    described = describe(wanted, changed=lambda spec: spec.model_copy(update=_order(workers)))
    problem, parts = described.spec, described.objects
    table: Table = parts.evaluator  # type: ignore[assignment]
    if simulated and not table.timed:
        raise UsageError(f"table '{table.file.name}' records no seconds, so there is no clock to simulate; --workers 1")
    found = Plan(
        problem=problem,
        contenders=chosen,
        queries=queries,
        seeds=seeds,
        workers=workers,
        simulated=simulated,
        landscape=_landscape(table, parts.objectives[0], parts.constraints),
    )
    _check_suitable(found, parts)
    return found


def parts_of(shared: StudyObjects, spec: StudySpec) -> StudyObjects:
    """The parts of a child, around the table that all children share. Raises UsageError."""
    strategy = refs.find(spec.strategy, strategies.BLACK_BOX, strategies.GROUP, "strategy")
    return replace(
        shared,
        setting=replace(shared.setting, seed=spec.seed),
        strategy=strategy,
        strategy_config=validate(strategy.Config, spec.strategy_config, f"strategy {spec.strategy}"),
    )


def differences(old: Plan, new: Plan) -> list[str]:
    """What differs between two plans, in words; what follows from the table is left out."""
    shared = old.contenders.keys() & new.contenders.keys()
    new = new.model_copy(update={"problem": as_stored(new.problem, old.problem)})
    there, now = (_decisive(plan, shared) for plan in (old, new))
    found = []
    for key in [key for key in {**there, **now} if key not in there or key not in now or there[key] != now[key]]:
        before, after = (repr(values[key]) if key in values else "nothing" for values in (there, now))
        found.append(f"{key}: {before} there, {after} now")
    return found


def test_of(metric: str) -> str:
    """The metric on the test split that belongs to one on the validation split."""
    return f"test_{metric.removeprefix('val_')}"


def _contenders(texts: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Contender]:
    found: dict[str, Contender] = {}
    for text in texts:
        label, separator, reference = text.partition("=")
        if not separator:
            label, reference = text.rpartition(":")[2], text
        if not LABEL.fullmatch(label):
            raise UsageError(f"strategies: '{text}' has no usable name; write NAME={reference or 'STRATEGY'}")
        if label in found:
            raise UsageError(f"strategies: '{label}' is there twice; give one another name, as in other={reference}")
        strategy = refs.find(reference, strategies.BLACK_BOX, strategies.GROUP, "strategy")
        given = settings.get(label, {})
        if not isinstance(given, Mapping):
            raise UsageError(f"'{label}={given}': write {label}.KEY=VALUE")
        config = validate(strategy.Config, given, f"strategy {label}")
        found[label] = Contender(strategy=reference, config=config.model_dump(mode="json"))
    if not found:
        raise UsageError("no strategies; name some: --strategies random,regularized-evolution")
    for label in settings:
        if label not in found:
            raise unknown("strategy in -s", label, found)
    return found


def _first_data(search: Mapping[str, Any]) -> str:
    """The data set that the table's mapping describes first."""
    from training.evaluators.table_mapping import TableMapping, find_mapping

    table = Path(search["table"])
    if not table.is_file():
        raise NotFoundError(f"there is no table '{table}'")
    return next(iter(TableMapping.load(find_mapping(table, search.get("mapping"))).data), "")


def _order(workers: int) -> dict[str, Any]:
    """With simulated workers an ask sees what has been finished by then, whatever was asked before it."""
    return {} if workers == 1 else {"ordering": "free", "lag": workers}


def _landscape(table: Table, objective: Objective, constraints: Sequence[Constraint]) -> Landscape:
    """Of the rows that satisfy the constraints. Raises InfeasibleError where none does."""
    column = table.column(objective.metric)
    known = numpy.isfinite(column)
    if not known.any():
        raise UsageError(f"table '{table.file.name}' has no {objective.metric}")
    within = numpy.ones_like(known)
    for one in constraints:
        limited = table.column(one.metric)
        within &= limited <= one.bound if one.relation == "<=" else limited >= one.bound
    if not (known & within).any():
        raise InfeasibleError(f"no row of table '{table.file.name}' satisfies {', '.join(map(str, constraints))}")
    column = column[known & within]
    values = numpy.sort(column if objective.goal == "max" else -column)[::-1]
    top = math.ceil(len(values) / TOP)
    test, test_mean = test_of(objective.metric), None
    if test in {metric.name for metric in table.metrics}:
        test_mean = float(numpy.nanmean(table.column(test)[within]))
    return Landscape(
        full=table.fidelity.high if table.fidelity else None,
        rows=len(values),
        optimum=float(values[0]),
        mean=float(values.mean()),
        top=top,
        threshold=float(values[top - 1]),
        test_mean=test_mean,
    )


def _check_suitable(plan: Plan, parts: StudyObjects) -> None:
    """Makes every strategy once. Raises UsageError that names those which refuse, and why."""
    refusals = {}
    for label in plan.contenders:
        try:
            parts_of(parts, plan.spec(label, 0)).make_strategy()
        except UsageError as error:
            refusals[label] = " ".join(str(error).split())
    if refusals:
        reasons = "\n".join(f"  {label}: {reason}" for label, reason in refusals.items())
        raise UsageError(
            f"not for space '{parts.space.name}' with this table: {', '.join(refusals)}; leave out or change\n{reasons}"
        )


def _decisive(plan: Plan, labels: Collection[str]) -> dict[str, Any]:
    """What two plans must share to be one, by a name for each; settings of the strategies `labels`."""
    dumped = plan.model_dump(mode="json", exclude={"landscape": True, "problem": _FOLLOWS})
    problem = dumped.pop("problem")
    contenders = dumped.pop("contenders")
    settings = {
        label: {"strategy": one["strategy"], **one["config"]} for label, one in contenders.items() if label in labels
    }
    return dict(_flat({"strategies": ", ".join(sorted(contenders)), **dumped, **problem})) | dict(_flat(settings))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flat(entry, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
