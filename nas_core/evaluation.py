"""Evaluators turn a proposal into metrics; objectives and constraints say what the metrics are worth."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from nas_core.architecture import Architecture
from nas_core.errors import UsageError, unknown
from nas_core.proposal import Budget, Proposal

Goal = Literal["max", "min"]

LOADS = "loads"
"""Of a report's `detail`: per layer of experts the share of its work that each of them does, by the layer's name."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that an evaluator reports. `cost`: a property of the architecture, known without training;
    `measured`: a duration or the like, which never repeats exactly; `spread_of`: the metric whose spread it is, known
    wherever that one is."""

    name: str
    goal: Goal = "max"
    unit: str = ""
    cost: bool = False
    measured: bool = False
    spread_of: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Metrics at a step (epochs, or the fidelity of a table). `seconds` is the duration since the start of
    the evaluation, or the recorded one of a table; `detail` is what is said beside the metrics, as JSON can hold
    it: what a job alone reads, and of trainings of layers of experts their `LOADS`, which are stored."""

    step: float
    metrics: Mapping[str, float]
    seconds: float = 0.0
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much of the full evaluation can be spent: from `low` to `high` in `unit`s, or only at `levels`.

    `continues`: whether a larger budget goes on from where a smaller one stopped.
    """

    unit: str
    low: float
    high: float
    levels: tuple[float, ...] | None = None
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What one evaluation is given beside the proposal.

    `workdir` belongs to the run: a checkpoint found in it is continued. `deadline` is in
    `time.monotonic()` seconds. `stopping()` becomes true when the search wants to stop: a training then
    writes a checkpoint after the current epoch, before it yields its report. `keep`: what was learned is left in
    `workdir`, for trainings that begin with it (`training.transfer`).
    """

    seed: int
    workdir: Path
    deadline: float | None = None
    stopping: Callable[[], bool] = field(default=lambda: False)
    keep: bool = False


class Evaluator(Protocol):
    """Turns a proposal into reports; the last one is final.

    A generator: closing it stops the candidate. `TrialError` fails the trial and the search goes on.
    `in_process` evaluators are run inline; `deterministic` ones give the same metrics for the same seed.
    """

    metrics: tuple[Metric, ...]
    fidelity: Fidelity | None
    deterministic: bool
    in_process: bool

    def identity(self, arch: Architecture) -> str | None:
        """What counts as the same candidate here (a table's row); None: the space decides."""
        ...

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Those of the cost metrics `names` that are known before evaluation."""
        ...

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """Reports of the proposal's architecture up to `budget` (None: the full one)."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to maximise or minimise."""

    metric: str
    goal: Goal

    def orient(self, value: float) -> float:
        """The value such that higher is better."""
        return value if self.goal == "max" else -value

    def __str__(self) -> str:
        return f"{self.metric}:{self.goal}"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric."""

    metric: str
    relation: Literal["<=", ">="]
    bound: float

    def violation(self, value: float) -> float:
        """Relative to the bound: <= 0 is feasible; a value that is not a number violates infinitely."""
        if math.isnan(value):
            return math.inf
        excess = value - self.bound if self.relation == "<=" else self.bound - value
        return excess / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:g}"


def parse_objective(text: str, metrics: Sequence[Metric]) -> Objective:
    """`val_accuracy` or `latency_ms:min`; the goal defaults to the metric's own. Raises UsageError."""
    name, _, goal = text.partition(":")
    known = {metric.name: metric for metric in metrics}
    if name not in known:
        raise unknown("metric", name, known)
    if goal not in ("", "max", "min"):
        raise UsageError(f"objective '{text}': the goal is '{goal}'; write {name}:max or {name}:min")
    return Objective(name, goal or known[name].goal)  # type: ignore[arg-type]


def parse_objectives(texts: Sequence[str], metrics: Sequence[Metric]) -> tuple[Objective, ...]:
    """One objective per metric: nothing is the best at both ends of one. Raises UsageError."""
    found: dict[str, tuple[str, Objective]] = {}
    for text in texts:
        objective = parse_objective(text, metrics)
        if objective.metric in found:
            raise UsageError(
                f"objectives '{found[objective.metric][0]}' and '{text}' are the same metric; name each metric once"
            )
        found[objective.metric] = (text, objective)
    return tuple(objective for _, objective in found.values())


_CONSTRAINT = re.compile(r"\s*([\w.]+)\s*(<=|>=)\s*(\S+)\s*")


def parse_constraint(text: str, metrics: Sequence[Metric]) -> Constraint:
    """`params<=5e5` or `val_accuracy>=0.9`. Raises UsageError."""
    found = read_constraint(text)
    if found.metric not in {metric.name for metric in metrics}:
        raise unknown("metric", found.metric, [metric.name for metric in metrics])
    return found


def read_constraint(text: str) -> Constraint:
    """A constraint on whatever metric, such as a stored one. Raises UsageError."""
    match = _CONSTRAINT.fullmatch(text)
    try:
        bound = float(match[3]) if match else math.nan
    except ValueError:
        bound = math.nan
    if not match or not math.isfinite(bound):
        raise UsageError(f"constraint '{text}' is malformed; write metric<=number or metric>=number, e.g. params<=5e5")
    return Constraint(match[1], match[2], bound)  # type: ignore[arg-type]


def parse_constraints(texts: Sequence[str], metrics: Sequence[Metric]) -> tuple[Constraint, ...]:
    """Raises UsageError also for two that no number satisfies."""
    found = tuple(parse_constraint(text, metrics) for text in texts)
    for lower in found:
        for upper in found:
            if (lower.metric, lower.relation, upper.relation) != (upper.metric, ">=", "<="):
                continue
            if lower.bound > upper.bound:
                raise UsageError(f"constraints '{lower}' and '{upper}': no candidate can satisfy both")
    return found
