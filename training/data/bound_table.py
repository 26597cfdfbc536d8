"""Rows of a table on a device: whole as tensors, batches by index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.task import Task
from training.data.loading import Loading
from training.data.passes import Orders
from training.data.scored import Scored
from training.data.split import Parts
from training.inputs.tables import TableInputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Rows(Protocol):
    """What is bound of a table (`training.data.table_source.TableSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def targets(self) -> NDArray[Any]: ...
    @property
    def strata(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def inputs(self) -> TableInputs: ...


class BoundTable(Scored):
    """Rows for the fit loop (`nas_core.batch.Data`): inputs are (rows [b, width] float32,), see `Orders`.

    Targets are class numbers [b], or numbers [b, 1] float32 in the unit of the training.
    """

    def __init__(self, source: Rows, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        self._orders = Orders(source.strata, source.parts, loading.batch_size, source.features.shape[1])
        self._rows = torch.from_numpy(source.features).to(self.device)
        self._targets = torch.from_numpy(source.targets).to(self.device)
        self._unit: tuple[float, float] | None = None
        if not source.inputs.classes:
            mean, deviation = self._unit = source.inputs.target_mean, source.inputs.target_deviation
            self._targets = ((self._targets - mean) / deviation).to(torch.float32)[:, None]

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order of a training pass depends on (seed, epoch)."""
        now = self._orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            inputs, targets = self._rows.index_select(0, rows), self._targets.index_select(0, rows)
            yield Batch((inputs,), targets, unit=self._unit)

    def targets(self, part: str) -> Tensor:
        return self._targets.index_select(0, self._orders.parts[part].to(self.device))
