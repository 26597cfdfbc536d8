"""Which metrics of a run are worth a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MICRO_BATCH = "micro_batch"  # samples that fit into memory at once


def shown(metrics: Mapping[str, Any], recipe: Mapping[str, Any] | None, first: Sequence[str] = ()) -> list[str]:
    """The names of metrics, those of `first` first. That memory sufficed for the recipe's whole batch is no news."""
    names = [name for name in first if name in metrics] + [name for name in metrics if name not in first]
    batch = (recipe or {}).get("batch_size")
    return [name for name in names if name != MICRO_BATCH or (batch is not None and metrics[name] < batch)]
