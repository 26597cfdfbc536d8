"""Samples that are read one by one, such as image files, and how all of them come into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from nas_core.config import Config
from nas_core.errors import MachineError, UsageError
from training.data.labels import listed
from training.inputs.images import Fit
from training.inputs.pictures import Unreadable
from training.memory import free_bytes
from training.reading import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 20  # items that are listed in an error


class ItemOptions(Config):
    """What may follow a folder or a data set, as in `folder:DIR?size=32&skip=unreadable`."""

    size: int | None = Field(default=None, ge=1, description="side of the square that image files become, in pixels")
    fit: Fit = Field(default="stretch", description="how: both sides alone, or the largest centred square")
    skip: Literal["unreadable"] | None = Field(default=None, description="leave out what cannot be read")
    labels: Literal["renumber"] | None = Field(default=None, description="number the labels that occur from 0")
    stream: bool = Field(default=False, description="read images while they are needed, not all at the start")
    workers: int | None = Field(default=None, ge=0, description="processes that read ahead while streaming")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if "fit" in self.model_fields_set and self.size is None:
            raise ValueError("fit says how images come to a size; add size=PIXELS")
        if self.stream and self.skip:
            raise ValueError("what cannot be read is known when all has been read; leave out skip or stream")
        if self.workers is not None and not self.stream:
            raise ValueError("workers read ahead while streaming; add stream=yes")
        return self


@dataclass(frozen=True, slots=True)
class Item:
    """Pixels [c, h, w], uint8 or float32, and the label as the source has it.

    `remarks` say what is odd about it, in words that are the same for every item that has it.
    """

    pixels: NDArray[Any]
    label: int | str
    remarks: tuple[str, ...] = ()


class Items(Protocol):
    """Samples that are read when they are asked for."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """How to speak of an item: its file or its place."""
        ...

    def read(self, number: int) -> Item:
        """Raises Unreadable."""
        ...


@dataclass(frozen=True, slots=True)
class Gathered:
    """Images [n, c, h, w] of the items with the numbers `kept` [n], their labels, and what to tell of them."""

    images: NDArray[Any]
    labels: list[int | str]
    kept: NDArray[np.int64]
    warnings: list[str]


SKIP = "; add ?skip=unreadable to go on without them"


def gather(items: Items, what: str, *, skip: bool = False, advice: str = SKIP) -> Gathered:
    """Reads all items. Grey ones become coloured where others are, bytes become floats where others are.

    With `skip` items that cannot be read are left out, which is told. Raises UsageError that lists them otherwise (with
    `advice`), and for more than one size; MachineError where the memory does not suffice.
    """
    where = f"data '{what}'"
    images: NDArray[Any] | None = None
    labels: list[int | str] = []
    kept: list[int] = []
    unreadable: dict[str, str] = {}
    other_sizes: list[str] = []
    remarks: dict[str, list[str]] = {}
    for number in counted(range(len(items)), what):
        name = items.name(number)
        try:
            item = items.read(number)
        except Unreadable as problem:
            unreadable[name] = str(problem)
            if images is None and len(unreadable) == SHOWN and not skip:  # none will be readable
                break
            continue
        for remark in item.remarks:
            remarks.setdefault(remark, []).append(name)
        if images is None:
            images = _space(len(items), item.pixels, where)
        if not fits(item.pixels, images):
            other_sizes.append(f"{name} has {size_of(item.pixels)}, {items.name(kept[0])} {size_of(images[0])}")
            continue
        images = _widened(images, item.pixels)
        images[len(kept)] = item.pixels
        labels.append(item.label)
        kept.append(number)
    if unreadable and (not skip or images is None):
        raise UsageError(f"{where}: {_listing(unreadable, len(items), images is None, advice)}")
    if other_sizes or images is None:
        raise UsageError(
            f"{where}: {len(other_sizes):,} of {len(items):,} images have another size ({listed(other_sizes, 3)}); "
            "one size is needed: add ?size=32 to resize image files"
        )
    told = [f"{remark}: {listed(names)}" for remark, names in remarks.items()]
    if unreadable:
        told.insert(
            0, f"{len(unreadable):,} of {len(items):,} cannot be read and are left out: {listed([*unreadable])}"
        )
    return Gathered(images[: len(kept)], labels, np.array(kept, dtype=np.int64), told)


def fits(pixels: NDArray[Any], images: NDArray[Any]) -> bool:
    """Whether an item [c, h, w] can stand among images [n, c, h, w]: the same size, or grey among coloured ones."""
    channels, (c, h, w) = {images.shape[1], pixels.shape[0]}, pixels.shape
    return images.shape[2:] == (h, w) and (channels == {c} or channels == {1, 3})


def size_of(pixels: NDArray[Any]) -> str:
    """`32x24 pixels`, and the channels where they are neither one nor three."""
    c, h, w = pixels.shape
    return f"{w}x{h} pixels" + ("" if c in (1, 3) else f" and {c} channels")


def _space(count: int, first: NDArray[Any], where: str) -> NDArray[Any]:
    """Room for as many images as the first one. Raises MachineError where the memory does not hold them."""
    needed, there = count * first.nbytes, free_bytes()
    if there is not None and needed > there:
        raise MachineError(
            f"{where}: {count:,} images of {size_of(first)} take {needed / 2**30:.1f} GiB, and {there / 2**30:.1f} GiB "
            "are free; add ?stream=yes to read them while they are needed, or make them smaller"
        )
    return np.empty((count, *first.shape), dtype=first.dtype)


def _widened(images: NDArray[Any], pixels: NDArray[Any]) -> NDArray[Any]:
    """The same images with three channels where `pixels` have three, as floats where those are."""
    if len(pixels) > images.shape[1]:
        images = np.repeat(images, len(pixels), axis=1)
    return images if images.dtype == pixels.dtype else images.astype(np.float32, copy=False)


def _listing(unreadable: dict[str, str], count: int, gave_up: bool, advice: str) -> str:
    lines = [f"{name}: {problem}" for name, problem in unreadable.items()]
    if gave_up:
        head = f"none of the first {len(lines):,} of {count:,} samples can be read" if len(lines) > 1 else lines.pop()
        return "\n".join([head, *lines])
    more = [f"... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    head = f"{len(lines):,} of {count:,} samples cannot be read{advice}"
    return "\n".join([head, *lines[:SHOWN], *more])
