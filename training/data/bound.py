"""Data on a device: whole sets as tensors, batches by index, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nas_core.batch import HALVES, PARTS, Batch
from nas_core.errors import unknown
from training.data.augment import Augment
from training.data.passes import Passes
from training.data.source import GraphSource, ImageSource

# Up to here the normalised float32 images are kept; larger sets stay as stored and are normalised batch by batch.
FLOAT_LIMIT = 2**30


class BoundImages:
    """Images for the fit loop (`nas_core.batch.Data`): inputs are (images [b, c, h, w] float32,), see `Passes`."""

    def __init__(
        self, source: ImageSource, device: torch.device | str, batch_size: int, augment: Augment, channels_last: bool
    ) -> None:
        self.task = source.task
        self.device = torch.device(device)
        shape, statistics = source.images.shape[1:], source.statistics
        self._passes = Passes(
            *(shape, source.labels, source.parts, statistics), self.device, batch_size, augment, channels_last
        )
        self._labels = torch.from_numpy(source.labels).to(self.device)
        self._images = torch.from_numpy(source.images).to(self.device)
        self._normalised = source.images.size * 4 < FLOAT_LIMIT
        if self._normalised:
            self._images = self._passes.normalise(self._images)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order and the augmentation of a training pass depend on (seed, epoch)."""
        now = self._passes.orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            images = self._images.index_select(0, rows)
            if not self._normalised:
                images = self._passes.normalise(images)
            yield Batch((self._passes.finish(images, now.draws),), self._labels.index_select(0, rows))

    def targets(self, part: str) -> Tensor:
        return self._labels.index_select(0, self._passes.orders.parts[part].to(self.device))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return mean_loss(output, batch)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return metric_sums(output, batch)


class BoundGraph:
    """A graph for the fit loop: one batch per part, inputs (features [n, f], edge_index [2, e]), the part as index."""

    def __init__(self, source: GraphSource, device: torch.device | str) -> None:
        self.task = source.task
        self.device = torch.device(device)
        features, edges, labels = (
            torch.from_numpy(array).to(self.device) for array in (source.features, source.edge_index, source.labels)
        )
        parts = {
            **dict(source.parts.items()),
            **dict(zip(HALVES, (source.parts.train, source.parts.valid), strict=True)),
        }
        self._batches = {
            name: Batch((features, edges), labels, torch.from_numpy(part).to(self.device))
            for name, part in parts.items()
        }

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The whole graph, once; it is the same for every epoch and seed."""
        if part not in self._batches:
            raise unknown("part", part, (*PARTS, *HALVES))
        yield self._batches[part]

    def targets(self, part: str) -> Tensor:
        batch = self._batches[part]
        return batch.target[batch.index]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return mean_loss(output, batch)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return metric_sums(output, batch)


def mean_loss(output: Tensor, batch: Batch) -> Tensor:
    """Mean cross entropy of logits [b, classes], in float32 under autocast too."""
    output, target = batch.scored(output)
    return functional.cross_entropy(output.float(), target)


def metric_sums(output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
    """Sums over the samples of a batch, as scalars on the device: number correct, loss, how many."""
    output, target = batch.scored(output.detach())
    logits = output.float()
    return {
        "accuracy": (logits.argmax(1) == target).sum(),
        "loss": functional.cross_entropy(logits, target, reduction="sum"),
        "count": torch.full((), len(target), device=target.device),
    }
