"""What answers to a batch come to: the loss and the metrics of the kind of task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.task import Task
from training.tasks import kind_of


class Scored:
    """The half of bound data (`nas_core.batch.Data`) that is the same for all of a kind."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._kind = kind_of(task)
        self._means = [metric for metric in self._kind.metrics_of(task) if metric.per_sample]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The kind's usual loss of outputs [b, k], in float32 under autocast too."""
        return self._kind.loss(*batch.scored(output))

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Sums over the samples of a batch, as scalars on the device: metrics that are means, the loss, how many."""
        output = output.detach().float()
        outputs, targets = batch.answered(output)
        return {
            **{metric.name: metric.function(outputs, targets).sum() for metric in self._means},
            "loss": self._kind.loss(*batch.scored(output), reduction="sum"),
            "count": torch.full((), len(targets), device=targets.device),
        }
