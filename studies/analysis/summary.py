"""One line per study, for `nas ls`: read without SQLAlchemy and pydantic, whose import costs more than the query."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.evaluation import Objective
from studies.store import SCHEMA, sqlite
from training.evaluators.earlier import as_now

# Answered by the index `runs_ended`, a range or an end of a range for each cell: a million trials cost little.
_TRIALS = "FROM runs r WHERE r.study = s.id AND r.kind = 'trial' AND r.ended IS NOT NULL AND r.state = t.column1"
_FEASIBLE = f"{_TRIALS} AND r.feasible = TRUE"
COUNTS = f"""
    SELECT s.id, t.column1, (SELECT COUNT(*) {_TRIALS})
    FROM studies s CROSS JOIN (VALUES ('complete'), ('failed'), ('pruned'), ('rejected'), ('reused')) t
    WHERE s.bench IS NULL ORDER BY 1, 2"""
BEST = f"""
    SELECT s.id, (SELECT MAX(r.objective) {_FEASIBLE} AND r.budget IS NULL), (SELECT MAX(r.budget) {_FEASIBLE}),
           (SELECT MAX(r.objective) {_FEASIBLE} AND r.budget = (SELECT MAX(r.budget) {_FEASIBLE}))
    FROM studies s CROSS JOIN (VALUES ('complete'), ('reused')) t
    WHERE s.bench IS NULL"""
STUDIES = """
    SELECT id, name, space, strategy, evaluator, objectives, budget, created FROM studies
    WHERE bench IS NULL ORDER BY id"""
SUPERNETS = """
    SELECT s.id, n.state, (SELECT MAX(e.epoch) FROM epochs e WHERE e.run = n.id), s.strategy_config
    FROM studies s LEFT JOIN runs n ON n.study = s.id AND n.kind = 'supernet' AND n.kind <> 'trial'
    WHERE s.supernet IS NOT NULL AND s.bench IS NULL"""

QUERIES = (STUDIES, COUNTS, BEST, SUPERNETS)


@dataclass(frozen=True, slots=True)
class Training:
    """Where the training of a one-shot study's supernet stands: finished epochs and all of them, where it is known.
    `state` is None before it has begun."""

    state: str | None
    epochs: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of `nas ls`. `best` is the first objective of the best feasible trial, oriented; `trials` and
    `seconds` are the budget."""

    name: str
    space: str
    strategy: str
    evaluator: str
    data: str
    objective: str
    states: Mapping[str, int]
    best: float | None
    trials: int | None
    seconds: float | None
    created: float
    supernet: Training | None = None

    @property
    def evaluated(self) -> int:
        return sum(self.states.get(state, 0) for state in ("complete", "pruned", "failed"))


def summarise(
    studies: Iterable[Any], counts: Iterable[Any], leading: Iterable[Any], supernets: Iterable[Any]
) -> list[Summary]:
    """The rows of STUDIES, COUNTS, BEST and SUPERNETS, put together in the order of the studies' creation."""
    trainings = {
        study: Training(state, epochs or 0, json.loads(strategy_config).get("epochs"))
        for study, state, epochs, strategy_config in supernets
    }
    states: dict[int, dict[str, int]] = {}
    for study, state, count in counts:
        if count:
            states.setdefault(study, {})[state] = count
    best: dict[int, tuple[float, float]] = {}  # of what got the largest budget: others do not compare with it
    for study, in_full, budget, objective in leading:
        for found in ((math.inf, in_full), (budget, objective)):
            if found[1] is not None:
                best[study] = max(found, best.get(study, found))
    result = []
    for number, name, space, strategy, evaluator, objectives, budget, created in studies:
        (kind, data), stop_at = _evaluator(json.loads(evaluator)), json.loads(budget)
        result.append(
            Summary(
                name=name,
                space=space,
                strategy=strategy,
                evaluator=kind,
                data=data,
                objective=json.loads(objectives)[0],
                states=states.get(number, {}),
                best=best[number][1] if number in best else None,
                trials=stop_at["trials"],
                seconds=stop_at["seconds"],
                created=created,
                supernet=trainings.get(number),
            )
        )
    return result


def _evaluator(stored: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of an evaluator, without what is around it, and its data."""
    settings = as_now(stored)
    while "inner" in settings:
        settings = settings["inner"]
    own = settings.get("settings") or {}
    return settings["kind"], str(settings.get("data", own.get("data", "")))


def glance(database: Path) -> list[Summary] | None:
    """The summaries of a SQLite database of the current schema; None where the store has to look itself."""
    try:
        connection = sqlite.reading(database)
        try:
            if connection.execute("SELECT version_num FROM alembic_version").fetchone() != (SCHEMA,):
                return None
            return summarise(*(connection.execute(query) for query in QUERIES))
        finally:
            connection.close()
    except (sqlite3.Error, ValueError, KeyError):
        return None


def document(summary: Summary) -> dict[str, Any]:
    """A study as `nas ls --json` has it."""
    goal = objective(summary.objective)
    return {
        "study": summary.name,
        "space": summary.space,
        "strategy": summary.strategy,
        "evaluator": summary.evaluator,
        "data": summary.data,
        "objective": summary.objective,
        "states": dict(summary.states),
        "evaluated": summary.evaluated,
        "budget": {"trials": summary.trials, "seconds": summary.seconds},
        "best": None if summary.best is None else goal.orient(summary.best),
        "created": summary.created,
        "supernet": None
        if summary.supernet is None
        else {"state": summary.supernet.state, "epochs": summary.supernet.epochs, "of": summary.supernet.total},
    }


def objective(text: str) -> Objective:
    """An objective as it is stored, `metric:goal`."""
    metric, _, goal = text.rpartition(":")
    return Objective(metric, "min" if goal == "min" else "max")
