"""Rows of a table on a device: whole as tensors, batches by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nas_core.batch import Batch
from training.data.bound import mean_loss, metric_sums
from training.data.passes import Orders
from training.data.table_source import TableSource


class BoundTable:
    """Rows for the fit loop (`nas_core.batch.Data`): inputs are (rows [b, width] float32,), see `Orders`.

    Targets are class numbers [b], or numbers [b, 1] float32 in the unit of the training.
    """

    def __init__(self, source: TableSource, device: torch.device | str, batch_size: int) -> None:
        self.task = source.task
        self.device = torch.device(device)
        self._orders = Orders(source.strata, source.parts, batch_size, source.features.shape[1])
        self._rows = torch.from_numpy(source.features).to(self.device)
        self._targets = torch.from_numpy(source.targets).to(self.device)
        self._unit = source.inputs.target_deviation
        if not source.inputs.classes:
            scaled = (self._targets - source.inputs.target_mean) / self._unit
            self._targets = scaled.to(torch.float32)[:, None]

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order of a training pass depends on (seed, epoch)."""
        now = self._orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            yield Batch((self._rows.index_select(0, rows),), self._targets.index_select(0, rows))

    def targets(self, part: str) -> Tensor:
        return self._targets.index_select(0, self._orders.parts[part].to(self.device))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if batch.target.dtype == torch.int64:
            return mean_loss(output, batch)
        return functional.mse_loss(output.float(), batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        if batch.target.dtype == torch.int64:
            return metric_sums(output, batch)
        errors = (output.detach().float() - batch.target).abs() * self._unit
        return {"mae": errors.sum(), "count": torch.full((), len(errors), device=self.device)}
