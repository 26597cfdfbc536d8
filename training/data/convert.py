"""Conversion of data sets into the documented npz files."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import MachineError, NotFoundError, UsageError
from training.data.files import arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

JPEG_KEYS = ("header", "data", "offsets", "labels")


def convert_jpeg(train: Path, test: Path | None, output: Path) -> dict[str, tuple[int, ...]]:
    """Decodes npz files of JPEG images into one file for `npz:FILE`; returns the shape of each array in it.

    An input holds `header` (the bytes that every JPEG starts with), `data` (all other bytes), `offsets` [n + 1] and
    `labels` [n]: image i is the file `header + data[offsets[i]:offsets[i + 1]]`. The output appears whole or not.
    """
    for path in (train, test):
        if path is not None and not path.is_file():
            raise NotFoundError(f"{path} does not exist")
        if path is not None and output.exists() and path.samefile(output):
            raise UsageError(f"{output} is the input; choose another output file")
    if output.suffix != ".npz":
        raise UsageError(f"output {output}: the name must end in .npz")
    if not output.parent.is_dir():
        raise NotFoundError(f"output {output}: there is no folder {output.parent}")
    result: dict[str, NDArray[Any]] = {}
    result["images"], result["labels"] = _decode(train)
    if test is not None:
        result["test_images"], result["test_labels"] = _decode(test)
        if result["images"].shape[1:] != result["test_images"].shape[1:]:
            raise UsageError(
                f"{train} holds images of {result['images'].shape[1:]}, {test} of {result['test_images'].shape[1:]}"
            )
    _write(output, result)
    return {key: array.shape for key, array in result.items()}


def _decode(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [n, h, w] or [n, h, w, 3] and labels [n]."""
    from PIL import Image

    found = arrays(path, JPEG_KEYS, JPEG_KEYS)
    header, data, offsets, labels = (found[key] for key in JPEG_KEYS)
    if header.dtype != np.uint8 or data.dtype != np.uint8 or offsets.dtype.kind not in "iu":
        raise UsageError(f"{path}: header and data need uint8, offsets integers")
    bounds = offsets.astype(np.int64)
    one_axis = all(part.ndim == 1 for part in (header, data, bounds, labels))
    if not one_axis or len(labels) == 0 or len(bounds) != len(labels) + 1 or not _increasing(bounds, len(data)):
        raise UsageError(f"{path}: offsets do not cut {data.size} bytes into {labels.size} images")
    start, body = header.tobytes(), data.tobytes()
    images: NDArray[np.uint8] | None = None
    for number in range(len(labels)):
        try:
            with Image.open(io.BytesIO(start + body[bounds[number] : bounds[number + 1]]), formats=("JPEG",)) as image:
                pixels = np.asarray(image, dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise UsageError(f"{path}: image {number} is no readable JPEG ({error})") from error
        if images is None:
            images = np.empty((len(labels), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise UsageError(f"{path}: image {number} has shape {pixels.shape}, the first one {images.shape[1:]}")
        images[number] = pixels
    assert images is not None
    return images, labels.astype(np.int64)


def _increasing(bounds: NDArray[np.int64], end: int) -> bool:
    return bool(bounds[0] >= 0 and bounds[-1] <= end and np.diff(bounds).min() > 0)


def _write(output: Path, result: dict[str, NDArray[Any]]) -> None:
    """Under a temporary name, synced, then renamed; nothing stays behind on failure."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, **result)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, output)
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        raise MachineError(f"{output}: cannot be written ({reason})") from error
    finally:
        temporary.unlink(missing_ok=True)
