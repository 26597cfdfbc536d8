"""Rows of a table with their targets, split and checked, which `bind` puts on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import Task, table_task
from training import tasks
from training.data.loading import DEFAULT, Loading
from training.data.split import Parts, split_hash, target_bins
from training.inputs.tables import TableInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data


@dataclass(frozen=True, eq=False)
class TableSource:
    """Rows [n, width] float32 as the network sees them, and targets [n]: class numbers (int64), or numbers in their own
    unit (float64). `inputs` says how rows came from the cells of a file.

    `examples` are the first rows of the validation part as texts, a cell per column of `inputs`: what exports are
    checked by.
    """

    reference: str
    task: Task
    split_hash: str
    features: NDArray[np.float32]
    targets: NDArray[Any]
    parts: Parts
    inputs: TableInputs
    examples: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """[n]: what parts have in equal shares, classes or bins of the targets."""
        return self.targets if self.inputs.classes else target_bins(self.targets)

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """Samples per class for each part; none where a number is predicted."""
        if not self.inputs.classes:
            return {}
        count = self.task.outputs
        counts = ((name, np.bincount(self.targets[part], minlength=count)) for name, part in self.parts.items())
        return {name: tuple(found.tolist()) for name, found in counts}

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """Batches of rows [b, width]; augmentation and layout are for images."""
        from training.data.bound_table import BoundTable

        return BoundTable(self, device, loading)


def table_source(
    reference: str,
    features: NDArray[np.float32],
    targets: NDArray[Any],
    parts: Parts,
    inputs: TableInputs,
    *,
    examples: Sequence[Sequence[str]] = (),
    warnings: Sequence[str] = (),
) -> TableSource:
    """A checked table. `features` are rows encoded as `inputs` says; `targets` numbers of `inputs.classes`, or, where
    there are none, finite numbers in their own unit.

    Raises UsageError for what cannot be learned from.
    """
    where = f"data '{reference}'"
    width = sum(inputs.widths)
    if features.ndim != 2 or features.shape[1] != width or len(features) != len(targets):
        raise UsageError(f"{where}: rows {features.shape}, targets {targets.shape}; needed are [n, {width}] and [n]")
    for name, values in (("rows", features), ("targets", targets)):
        if not np.isfinite(values).all():
            raise UsageError(f"{where}: {name} hold NaN or infinite values")
    features = np.require(features, dtype=np.float32, requirements=["C", "W"])  # a tensor may share this memory
    targets = np.ascontiguousarray(targets, dtype=np.int64 if inputs.classes else np.float64)
    kind = tasks.find(inputs.kind)
    if kind.Inputs is not TableInputs:
        raise UsageError(f"{where}: '{inputs.kind}' is no kind of task on tables")
    task = table_task(inputs.kind, inputs.widths, len(inputs.classes) or 1, kind.metrics[0].name)
    name = split_hash(targets, parts, features)
    rows = tuple(tuple(row) for row in examples)
    return TableSource(reference, task, name, features, targets, parts, inputs, rows, tuple(warnings))
