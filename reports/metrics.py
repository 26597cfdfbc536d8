"""Which metrics of a run are worth a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.records import StudySpec

MICRO_BATCH = "micro_batch"  # samples that fit into memory at once


def shown(metrics: Mapping[str, Any], batch: int | None, first: Sequence[str] = ()) -> list[str]:
    """The names of metrics, those of `first` first. That memory sufficed for whole batches of `batch` is no news."""
    names = [name for name in first if name in metrics] + [name for name in metrics if name not in first]
    return [name for name in names if name != MICRO_BATCH or (batch is not None and metrics[name] < batch)]


def batch_size(spec: StudySpec) -> int | None:
    """Of the trainings of a study's candidates; None where they are not trained."""
    recipe = spec.evaluator.facts.recipe
    return None if recipe is None else recipe.batch_size


def batch_size_of(run: Run) -> int | None:
    """Of a training of its own (`nas train`)."""
    recipe: Mapping[str, Any] = (run.recipe or {}).get("recipe") or {}
    return recipe.get("batch_size")
