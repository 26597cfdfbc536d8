"""Between records and rows: what is JSON, what is a number, what is empty."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from nas_core.architecture import Architecture
from nas_core.errors import UsageError, VerificationError
from nas_core.evaluation import Report
from nas_core.model import UNCHANGED, Changes
from nas_core.records import Bench, Run, StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.records import Study, StudySpec

_JSON_FIELDS = (
    "size",
    "strategy_config",
    "evaluator",
    "task",
    "objectives",
    "constraints",
    "early_stop",
    "scoring",
    "warm_start",
    "supernet",
    "final_size",
    "inputs",
    "files",
)


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


dump_note = lru_cache(maxsize=256)(lambda items: dump(dict(items)))


def study_row(name: str, spec: StudySpec, stop_at: StopAt, bench: int | None, created: float) -> dict[str, Any]:
    row: dict[str, Any] = spec.model_dump(mode="json")
    row.update({field: dump(row[field]) for field in _JSON_FIELDS if row[field] is not None})
    return {**row, "name": name, "budget": stop_at.model_dump_json(), "bench": bench, "created": created}


def verdict_row(verdict: Verdict, ended: float | None) -> dict[str, Any]:
    values = verdict.values
    return {
        "state": str(verdict.state),
        "reason": verdict.reason,
        "objectives": None if values is None else dump(values),
        "violations": dump(verdict.violations) if verdict.violations else None,
        "objective": values[0] if values else None,
        "feasible": verdict.feasible if values is not None else None,
        "seconds": verdict.seconds,
        "traceback": verdict.traceback,
        "ended": ended,
    }


def metric_row(run_id: int, step: float, name: str, value: float) -> dict[str, Any]:
    finite, kind = _kind_of(value)
    return {"run": run_id, "step": step, "name": name, "value": value if finite else None, "number": kind}


def loads_row(run_id: int, report: Report, loads: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """How an epoch of a training divides the work of its layers of experts."""
    return {
        "run": run_id,
        "epoch": int(report.step),
        "architecture": None,
        "metrics": dump({}),
        "strengths": dump({name: list(shares) for name, shares in loads.items()}),
        "seconds": report.seconds,
    }


def score_row(context: int, predictor: str, arch: Architecture, value: float, seconds: float | None) -> dict[str, Any]:
    finite, kind = _kind_of(value)
    return {
        "context": context,
        "predictor": predictor,
        "architecture": arch.key,
        "value": value if finite else None,
        "number": kind,
        "seconds": seconds,
    }


def _kind_of(value: float) -> tuple[bool, str]:
    if math.isfinite(value):
        return True, "finite"
    return False, "nan" if math.isnan(value) else "+inf" if value > 0 else "-inf"


def number(row: Any) -> float:
    return float(row.value) if row.number == "finite" else float(row.number)


def study(row: Any) -> Study:
    """Raises VerificationError for a row that was not written by us."""
    try:
        return _study(row)
    except (ValueError, UsageError) as error:
        raise VerificationError(f"the stored study '{row.name}' is damaged: {_short(error)}") from None


def bench(row: Any) -> Bench:
    return Bench(row.id, row.name, json.loads(row.config), row.created)


def run(row: Any, metrics: Mapping[str, float]) -> Run:
    """Raises VerificationError for a row that was not written by us."""
    try:
        return _run(row, metrics)
    except ValueError as error:
        raise VerificationError(f"the stored {row.kind} {row.number} is damaged: {_short(error)}") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _study(row: Any) -> Study:
    if any(part in ("", ".", "..") for part in row.name.split("/")):
        raise ValueError("no folder can be called so")  # `nas rm` would remove what lies there
    values = {field: getattr(row, field) for field in StudySpec.model_fields}
    values.update({field: json.loads(values[field]) for field in _JSON_FIELDS if values[field] is not None})
    measured = {} if row.measured is None else json.loads(row.measured)
    stop_at = StopAt.model_validate_json(row.budget)
    return Study(row.id, row.name, StudySpec(**values), stop_at, row.created, row.bench, measured)


def _run(row: Any, metrics: Mapping[str, float]) -> Run:
    values = None if row.objectives is None else tuple(json.loads(row.objectives))
    violations = () if row.violations is None else tuple(json.loads(row.violations))
    return Run(
        id=row.id,
        kind=row.kind,
        number=row.number,
        parent=row.parent,
        proposal=Proposal(
            *(Architecture.from_json(row.arch_json), row.budget, row.continues, json.loads(row.note), row.transfer)
        ),
        identity=row.identity,
        repeat=row.repeat,
        recipe=None if row.recipe is None else json.loads(row.recipe),
        verdict=Verdict(State(row.state), row.reason, values, violations, row.seconds, row.traceback),
        reuses=row.reuses,
        attempt=row.attempt,
        asked_after=row.asked_after,
        told=row.told,
        started=row.started,
        ended=row.ended,
        metrics=metrics,
        tries=row.tries,
        changes=UNCHANGED if row.changes is None else Changes.model_validate_json(row.changes),
    )
