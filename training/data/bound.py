"""Data on a device: whole sets as tensors, batches by index, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nas_core.batch import HALVES, PARTS, Batch
from nas_core.errors import UsageError, unknown
from nas_core.seeds import derive, generator
from training.data.augment import Augment, apply
from training.data.source import GraphSource, ImageSource
from training.data.split import stratified

# Up to here the normalised float32 images are kept; larger sets stay as stored and are normalised batch by batch.
FLOAT_LIMIT = 2**30
# Batches without gradients are as large as this many input values allow, at most 1,024 samples.
EVALUATION_VALUES = 2**20


class BoundImages:
    """Images for the fit loop (`nas_core.batch.Data`): inputs are (images [b, c, h, w] float32,).

    Training batches are shuffled and augmented by draws on the CPU that depend on (seed, epoch, part) alone, so every
    device sees the same ones; a last training batch of one sample, which batch normalisation cannot use, is left out.
    Validation and test come in order and in large batches.
    """

    def __init__(
        self, source: ImageSource, device: torch.device | str, batch_size: int, augment: Augment, channels_last: bool
    ) -> None:
        c, h, w = source.images.shape[1:]
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size}: at least 1 is needed")
        for name, pixels in (("crop", augment.crop), ("cutout", augment.cutout)):
            if pixels >= min(h, w):
                raise UsageError(f"augment.{name} {pixels} is too large for images of {h}x{w} pixels")
        self.task = source.task
        self.device = torch.device(device)
        self._batch_size, self._augment, self._channels_last = batch_size, augment, channels_last
        self._evaluation_size = max(batch_size, min(1024, EVALUATION_VALUES // (c * h * w)))
        mean, deviation = (torch.tensor(values, dtype=torch.float32) for values in source.statistics)
        self._mean, self._deviation = (values.view(1, c, 1, 1).to(self.device) for values in (mean, deviation))
        self._labels = torch.from_numpy(source.labels).to(self.device)
        train = source.parts.train
        halves = stratified(source.labels[train], 0.5, generator("halves"))
        parts = {**dict(source.parts.items()), **{name: train[half] for name, half in zip(HALVES, halves, strict=True)}}
        self._parts = {name: torch.from_numpy(part) for name, part in parts.items()}
        self._images = torch.from_numpy(source.images).to(self.device)
        self._normalised = source.images.size * 4 < FLOAT_LIMIT
        if self._normalised:
            self._images = self._normalise(self._images)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order and the augmentation of a training pass depend on (seed, epoch)."""
        if part not in self._parts:
            raise unknown("part", part, (*PARTS, *HALVES))
        training = part in ("train", *HALVES)
        order, size = self._parts[part], self._evaluation_size
        draws = torch.Generator()
        if training:
            draws.manual_seed(derive(seed, epoch, part))
            order, size = order[torch.randperm(len(order), generator=draws)], self._batch_size
        order = order.to(self.device)
        for rows in order.split(size):
            if training and len(rows) == 1 and size > 1:
                return
            images = self._images.index_select(0, rows)
            if not self._normalised:
                images = self._normalise(images)
            if training:
                images = apply(images, self._augment, draws, -self._mean / self._deviation)
            if self._channels_last:
                images = _to_channels_last(images)
            yield Batch((images,), self._labels.index_select(0, rows))

    def targets(self, part: str) -> Tensor:
        return self._labels.index_select(0, self._parts[part].to(self.device))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return mean_loss(output, batch)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return metric_sums(output, batch)

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).sub_(self._mean).div_(self._deviation)


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


def _to_channels_last(images: Tensor) -> Tensor:
    if images.shape[1] > 1:
        return images.contiguous(memory_format=torch.channels_last)
    # With one channel both layouts hold the same bytes; only these strides make convolutions go on in channels_last.
    n, _, h, w = images.shape
    return images.reshape(n, h, w, 1).permute(0, 3, 1, 2)
