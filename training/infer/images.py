"""Images for a network: a file, prepared as the images of a folder are for training, or all images of an npz file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import NotFoundError, UsageError
from training.data.files import arrays, file_of
from training.data.npz import EXAMPLE, images_of
from training.inputs.images import ImageInputs
from training.inputs.pictures import Unreadable, read_file
from training.inputs.samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read(inputs: ImageInputs, argument: str) -> Samples:
    """One image file, or `npz:FILE`. Raises NotFoundError, or UsageError naming file and fault."""
    scheme, colon, rest = argument.partition(":")
    if colon and scheme == "npz":
        return _arrays(inputs, rest)
    if colon and scheme == "graph":
        raise UsageError(f"'{argument}' is a graph, but the network classifies images; give image files or npz:FILE")
    return _picture(inputs, Path(argument))


def _picture(inputs: ImageInputs, path: Path) -> Samples:
    if inputs.mode is None:
        raise UsageError(
            f"the network takes images of {inputs.channels} channels, which no image file has; give npz:FILE"
        )
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name its image files: {path}/*")
    if not path.exists():
        raise NotFoundError(f"there is no file '{path}'; inputs are image files or npz:FILE")
    size = (inputs.height, inputs.width)
    try:
        found = read_file(path, size, inputs.fit, inputs.mode)
    except Unreadable as problem:
        raise UsageError(f"'{path}' is {problem}") from problem
    share = found.pixels[None].astype(np.float32) / np.float32(255)
    resized = [f"brought to {inputs.width}x{inputs.height} pixels ({inputs.fit})"] if found.shown != size else []
    return Samples((str(path),), (share,), note="; ".join([*resized, *found.remarks]))


def _arrays(inputs: ImageInputs, argument: str) -> Samples:
    path = file_of("npz", argument, EXAMPLE)
    stored = images_of(path, arrays(path, ("images",), ("images", "layout")))
    needed = (inputs.channels, inputs.height, inputs.width)
    if stored.shape[1:] != needed:
        raise UsageError(f"{path}: images are {_shape(stored.shape[1:])}, the network takes {_shape(needed)}")
    return Samples(tuple(f"{path}:{row}" for row in range(len(stored))), (_shares(inputs, path, stored),))


def _shares(inputs: ImageInputs, path: Path, stored: NDArray[Any]) -> NDArray[np.float32]:
    """From 0 to 1, as the numbers of the training data are."""
    if stored.dtype.kind not in "iufb":
        raise UsageError(f"{path}: images are {stored.dtype}; needed are numbers")
    low, high = inputs.value_range
    shares = (stored.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    if not np.isfinite(shares).all():
        raise UsageError(f"{path}: images hold NaN or infinite values")
    return shares


def _shape(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents))
