"""`npz:FILE`: images and labels as numpy arrays, from any source (keys in docs/data.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.data.files import arrays, file_of
from training.data.source import ImageSource, image_source
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "npz:FILE, where FILE holds the arrays images and labels"
KEYS = ("images", "labels", "test_images", "test_labels", "classes", "layout")


def load(argument: str, split: Split) -> ImageSource:
    """Images [n, h, w], [n, h, w, c] or [n, c, h, w] with integer labels; a test part where the file has one."""
    path = file_of("npz", argument, EXAMPLE)
    found = arrays(path, ("images", "labels"), KEYS)
    if ("test_images" in found) != ("test_labels" in found):
        raise UsageError(f"{path}: test_images and test_labels go together; only one of them is there")
    layout = _layout(path, found)
    classes = _classes(path, found.get("classes"))
    images, labels = _channels_first(path, "images", found["images"], layout), found["labels"]
    test = None
    if "test_images" in found:
        more = _channels_first(path, "test_images", found["test_images"], layout)
        if more.shape[1:] != images.shape[1:] or more.dtype != images.dtype:
            raise UsageError(
                f"{path}: images are {images.dtype} {images.shape[1:]}, test_images {more.dtype} {more.shape[1:]}"
            )
        for name, count in (("labels", len(images)), ("test_labels", len(more))):
            if found[name].shape != (count,):
                raise UsageError(f"{path}: {name} have shape {found[name].shape}; needed are {count}, one per image")
        test = np.arange(len(images), len(images) + len(more))
        images, labels = np.concatenate([images, more]), np.concatenate([labels, found["test_labels"]])
    return image_source(f"npz:{argument}", images, labels, split, test=test, classes=classes)


def images_of(path: Path, found: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The images of such a file, [n, c, h, w]. Raises UsageError for a shape that is none."""
    return _channels_first(path, "images", found["images"], _layout(path, found))


def _layout(path: Path, found: dict[str, NDArray[Any]]) -> str:
    """`nhw`, `nhwc` or `nchw`: stated, or read off the axis of at most 4 channels."""
    shape = found["images"].shape
    if "layout" in found:
        layout = str(found["layout"])
        if layout not in ("nhw", "nhwc", "nchw") or len(layout) != len(shape):
            raise UsageError(f"{path}: layout '{layout}' of images {shape}; it is nhw, nhwc or nchw, a letter per axis")
        return layout
    if len(shape) == 3:
        return "nhw"
    if len(shape) != 4:
        raise UsageError(f"{path}: images have shape {shape}; needed are [n, h, w], [n, h, w, c] or [n, c, h, w]")
    last, first = shape[3] <= 4, shape[1] <= 4
    if last == first:
        raise UsageError(f"{path}: images {shape} do not show where the channels are; add the key layout: nhwc or nchw")
    return "nhwc" if last else "nchw"


def _channels_first(path: Path, name: str, images: NDArray[Any], layout: str) -> NDArray[Any]:
    if images.ndim != len(layout):
        raise UsageError(f"{path}: {name} have shape {images.shape}, which is not {layout}")
    if layout == "nhw":
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if layout == "nhwc" else images


def _classes(path: Path, names: NDArray[Any] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.dtype.kind != "U" or names.ndim != 1:
        raise UsageError(f"{path}: classes are {names.dtype} {names.shape}; needed is one text per class")
    return tuple(names.tolist())
