"""One pass over a part of a data set: which samples make up a batch, and how images reach the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas_core.batch import HALVES, PARTS
from nas_core.errors import UsageError, unknown
from nas_core.seeds import derive, generator
from training.data.augment import apply
from training.data.loading import Loading
from training.data.split import Parts, stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Batches without gradients are as large as this many input values allow, at most 1,024 samples.
EVALUATION_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class Pass:
    """All rows in order, on the CPU, how many of them make a batch, and what random changes are drawn from."""

    order: Tensor
    batch_size: int
    draws: torch.Generator | None


class Orders:
    """The passes over samples of `values` numbers each, wherever these are kept.

    Training batches are shuffled by draws on the CPU that depend on (seed, epoch, part) alone, so every device sees the
    same ones; a last training batch of one sample, which batch normalisation cannot use, is left out. Validation and
    test come in order and in large batches. `strata` [n] are what the halves have in equal shares, mostly classes.
    """

    def __init__(self, strata: NDArray[Any], parts: Parts, batch_size: int, values: int) -> None:
        """Raises UsageError for a batch size below 1."""
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size}: at least 1 is needed")
        self._batch_size = batch_size
        self._evaluation_size = max(batch_size, min(1024, EVALUATION_VALUES // values))
        train = parts.train
        halves = stratified(strata[train], 0.5, generator("halves"))
        every = {**dict(parts.items()), **{name: train[half] for name, half in zip(HALVES, halves, strict=True)}}
        self.parts = {name: torch.from_numpy(part) for name, part in every.items()}

    def of(self, part: str, epoch: int, seed: int) -> Pass:
        """Raises UsageError for a part that is none of PARTS and HALVES."""
        if part not in self.parts:
            raise unknown("part", part, (*PARTS, *HALVES))
        order = self.parts[part]
        if part not in ("train", *HALVES):
            return Pass(order, self._evaluation_size, None)
        draws = torch.Generator()
        draws.manual_seed(derive(seed, epoch, part))
        order, size = order[torch.randperm(len(order), generator=draws)], self._batch_size
        return Pass(order[:-1] if size > 1 and len(order) % size == 1 else order, size, draws)


class Passes:
    """The passes over images of one shape, wherever these are kept, in the order that `Orders` says.

    The augmentation of a training pass goes on with the draws of its order.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        labels: NDArray[Any],
        parts: Parts,
        statistics: tuple[Sequence[float], Sequence[float]],
        device: torch.device,
        loading: Loading,
    ) -> None:
        """Raises UsageError for a batch size or an augmentation that images of this shape do not allow."""
        c, h, w = shape
        self.orders = Orders(labels, parts, loading.batch_size, c * h * w)
        augment = loading.augment
        for name, pixels in (("crop", augment.crop), ("cutout", augment.cutout)):
            if pixels >= min(h, w):
                raise UsageError(f"augment.{name} {pixels} is too large for images of {h}x{w} pixels")
        self._augment, self._channels_last = augment, loading.channels_last
        mean, deviation = (torch.tensor(values, dtype=torch.float32) for values in statistics)
        self._mean, self._deviation = (values.view(1, c, 1, 1).to(device) for values in (mean, deviation))

    def normalise(self, images: Tensor) -> Tensor:
        """Stored values [n, c, h, w] as the network sees them, in float32."""
        return images.to(torch.float32, copy=True).sub_(self._mean).div_(self._deviation)

    def finish(self, images: Tensor, draws: torch.Generator | None) -> Tensor:
        """Normalised images of a batch, changed at random in a training pass, in the layout that was asked for."""
        if draws is not None:
            images = apply(images, self._augment, draws, -self._mean / self._deviation)
        return _to_channels_last(images) if self._channels_last else images


def _to_channels_last(images: Tensor) -> Tensor:
    if images.shape[1] > 1:
        return images.contiguous(memory_format=torch.channels_last)
    # With one channel both layouts hold the same bytes; only these strides make convolutions go on in channels_last.
    n, _, h, w = images.shape
    return images.reshape(n, h, w, 1).permute(0, 3, 1, 2)
