"""Images that are read while they are needed, for sets that do not fit into memory (`?stream=yes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import Task, image_task
from training.data.items import Item, Items, fits, gather, size_of
from training.data.labels import class_labels
from training.data.loading import DEFAULT, Loading
from training.data.source import Floats, absent_classes, channel_statistics, class_counts, image_inputs
from training.data.split import Parts, Split, divide, split_hash
from training.inputs import ImageInputs
from training.inputs.images import Fit, observed_range
from training.inputs.pictures import Unreadable
from training.reading import counted
from training.seeded import seeded

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

SAMPLED = 1000  # items that the hash covers, and training items that mean and deviation are taken from


@dataclass(frozen=True, eq=False)
class StreamSource:
    """Images [c, h, w] behind `items`, with labels [n] int64 and the parts they belong to.

    `statistics` are mean and deviation of at most 1,000 training images, evenly spread. `split_hash` covers the number
    of items, their labels, the parts and the first 1,000 images. `workers` processes read ahead; 0 reads in this one.
    """

    reference: str
    task: Task
    split_hash: str
    items: Items
    labels: NDArray[np.int64]
    parts: Parts
    classes: tuple[str, ...]
    value_range: tuple[float, float]  # the stored numbers of black and white
    fit: Fit
    statistics: tuple[Floats, Floats]
    dtype: np.dtype[Any]
    workers: int | None
    warnings: tuple[str, ...]

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        return class_counts(self.labels, self.parts, self.task.outputs)

    @cached_property
    def inputs(self) -> ImageInputs:
        return image_inputs(self.task, self.value_range, self.statistics, self.fit, self.classes)

    def name(self, number: int) -> str:
        """How to speak of an image."""
        return self.items.name(number)

    def stored(self, numbers: Sequence[int], seed: int) -> NDArray[Any]:
        """Images [n, c, h, w] as the items hold them; random transforms of the user's depend on `seed` alone.

        Raises UsageError for one that cannot be read, or is unlike those that were read first.
        """
        found = np.empty((len(numbers), *self.task.input_shape), dtype=self.dtype)
        with seeded(seed):
            for place, number in enumerate(numbers):
                where = f"data '{self.reference}': {self.name(number)}"
                try:
                    pixels = self.items.read(number).pixels
                except Unreadable as problem:
                    raise UsageError(f"{where}: {problem}") from problem
                if not fits(pixels, found) or len(pixels) > len(found[0]):
                    shapes = [" x ".join(map(str, shape)) for shape in (pixels.shape, found.shape[1:])]
                    raise UsageError(f"{where} is {shapes[0]}, the first images are {shapes[1]}; one shape is needed")
                if not np.can_cast(pixels.dtype, self.dtype):
                    raise UsageError(f"{where} holds {pixels.dtype}, the first images {self.dtype}")
                found[place] = pixels
        return found

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        from training.data.bound_stream import BoundStream

        return BoundStream(self, device, loading)


def stream_source(
    reference: str,
    items: Items,
    labels: Sequence[int | str] | None,
    split: Split,
    *,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    classes: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
    fit: Fit = "stretch",
    workers: int | None = None,
    renumber: bool = False,
    warnings: Sequence[str] = (),
) -> StreamSource:
    """A checked and split image set whose images stay where they are; arguments as of `image_source`.

    `labels` are those of all items where these are known; otherwise, or where those of the first 1,000 items are
    others, all items are read once for them, which is told. Raises UsageError as `image_source` and `gather`.
    """
    where, told = f"data '{reference}'", list(warnings)
    with seeded(0):
        first = gather(_Chosen(items, range(min(len(items), SAMPLED))), reference, advice="")
    if labels is None or list(labels[: len(first.labels)]) != first.labels:
        labels = _labels(items, reference)
        told.append("all items are read for their labels whenever the data are loaded; give the data set `targets`")
    read = class_labels(np.array(labels), len(items), "images", where, classes=classes, renumber=renumber)
    try:
        parts = divide(read.numbers, split, valid=valid, test=test)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    rows = parts.train[np.linspace(0, len(parts.train) - 1, min(len(parts.train), SAMPLED)).astype(np.int64)]
    with seeded(0):
        spread = gather(_Chosen(items, rows.tolist()), reference, advice="")
    images = np.concatenate(_alike(first.images, spread.images, where))
    black, white = observed_range(images) if value_range is None else value_range
    told += dict.fromkeys([*first.warnings, *spread.warnings])
    return StreamSource(
        reference=reference,
        task=image_task(images.shape[1:], read.outputs),
        split_hash=split_hash(read.numbers, parts, np.array([len(items)]), images[: len(first.images)]),
        items=items,
        labels=read.numbers,
        parts=parts,
        classes=read.classes,
        value_range=(black, white),
        fit=fit,
        statistics=channel_statistics(images, np.arange(len(first.images), len(images))),
        dtype=images.dtype,
        workers=workers,
        warnings=(*told, *read.warnings, *absent_classes(read.numbers, parts, read)),
    )


@dataclass(frozen=True)
class _Chosen:
    """Some of the items, as items."""

    items: Items
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> str:
        return self.items.name(self.numbers[number])

    def read(self, number: int) -> Item:
        return self.items.read(self.numbers[number])


def _labels(items: Items, what: str) -> list[int | str]:
    labels = []
    with seeded(0):
        for number in counted(range(len(items)), f"labels of {what}"):
            try:
                labels.append(items.read(number).label)
            except Unreadable as problem:
                raise UsageError(f"data '{what}': {items.name(number)}: {problem}") from problem
    return labels


def _alike(first: NDArray[Any], second: NDArray[Any], where: str) -> list[NDArray[Any]]:
    """Both with the larger number of channels and the wider type. Raises UsageError for two sizes."""
    channels = max(first.shape[1], second.shape[1])
    if first.shape[2:] != second.shape[2:]:
        sizes = size_of(first[0]), size_of(second[0])
        raise UsageError(f"{where}: images have {sizes[0]} and {sizes[1]}; one size is needed: add ?size=32")
    dtype = np.promote_types(first.dtype, second.dtype)
    return [np.broadcast_to(part, (len(part), channels, *part.shape[2:])).astype(dtype) for part in (first, second)]
