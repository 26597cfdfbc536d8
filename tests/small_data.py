"""Data for tests that train small networks on the CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import Task


class Classes(ABC):
    """What follows of the batches of data for classification (`nas_core.batch.Data`)."""

    task: Task

    @abstractmethod
    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]: ...

    def targets(self, part: str) -> Tensor:
        return torch.cat([batch.target for batch in self.batches(part, 0, 0)])

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(*batch.scored(output))

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        logits, target = batch.scored(output)
        losses = functional.cross_entropy(logits, target, reduction="sum")
        return {"accuracy": (logits.argmax(1) == target).sum(), "loss": losses, "count": torch.tensor(len(target))}


class Images(Classes):
    """`samples` noisy images [3, side, side] of two classes, the same in all parts, in batches of 16 that never
    change."""

    def __init__(self, samples: int = 48, side: int = 4) -> None:
        self.samples, self.side = samples, side
        self.task = Task(kind="image-classification", input_shape=(3, side, side), outputs=2)

    def order(self, seed: int) -> Tensor:
        return torch.arange(self.samples)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        target = torch.arange(self.samples) % 2
        noise = torch.randn(self.samples, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))
        images = noise + target[:, None, None, None]
        for rows in self.order(seed).split(16):
            yield Batch((images[rows],), target[rows])
