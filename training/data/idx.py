"""`idx:DIR`: MNIST, Fashion-MNIST and others in the idx format (LeCun, Cortes and Burges), gzipped or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from training.data.files import content, first_of, folder_of
from training.data.reference import options
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.inputs.images import BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "idx:DIR, where DIR holds train-images-idx3-ubyte.gz and the other three files"


class Options(Config):
    """What may follow the folder, as in `idx:DIR?labels=renumber`, which the letters of EMNIST (1 to 26) need."""

    labels: Literal["renumber"] | None = Field(default=None, description="number the labels that occur from 0")


def load(argument: str, split: Split) -> ImageSource:
    """Grey images [1, h, w]; `t10k` files are the test part. Raises NotFoundError or UsageError naming the file."""
    where, chosen = options("idx", argument, Options)
    folder = folder_of("idx", where, EXAMPLE)
    (images, labels), (test_images, test_labels) = _part(folder, "train"), _part(folder, "t10k")
    if images.shape[1:] != test_images.shape[1:]:
        raise UsageError(f"{folder}: train images are {images.shape[1:]}, t10k images {test_images.shape[1:]}")
    return image_source(
        f"idx:{argument}",
        np.concatenate([images, test_images])[:, None],
        np.concatenate([labels, test_labels]),
        split,
        test=np.arange(len(images), len(images) + len(test_images)),
        value_range=BYTES,
        renumber=chosen.labels == "renumber",
    )


def _part(folder: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images_path, labels_path = (
        first_of(folder, [f"{name}-{kind}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")])
        for kind, axes in (("images", 3), ("labels", 1))
    )
    images, labels = read(images_path, 3), read(labels_path, 1)
    if len(images) != len(labels):
        raise UsageError(f"{labels_path}: {len(labels)} labels for {len(images)} images in {images_path.name}")
    return images, labels


def read(path: Path, axes: int) -> NDArray[np.uint8]:
    """An idx file of bytes with this many axes: 00 00 08 axes, big-endian uint32 per axis, then the values."""
    data = content(path)
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes((0, 0, 8, axes)):
        found = data[:4].hex(" ") or "nothing"
        raise UsageError(
            f"{path}: not an idx file of bytes with {axes} axes (starts with {found}, not 00 00 08 0{axes})"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", axes, 4))
    if len(data) - head != int(np.prod(shape, dtype=np.int64)):
        raise UsageError(f"{path}: the header promises {shape}, but {len(data) - head} bytes follow it")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
