"""`npz:FILE`: images and labels as numpy arrays, from any source (keys in docs/data.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from training.data.files import arrays, file_of, texts, unused
from training.data.reference import options
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.data.task_source import task_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "npz:FILE, where FILE holds the arrays images and labels"
KEYS = ("images", "labels", "task", "test_images", "test_labels", "test_task", "classes", "layout")
NO_VALIDATION = (
    "; validation images are drawn from images (split.valid), and data with a part of their own for them are read from "
    "a data set of your own (docs/data.md)"
)


class Options(Config):
    """What may follow the file, as in `npz:FILE?labels=renumber`."""

    labels: Literal["renumber"] | None = Field(default=None, description="number the labels that occur from 0")
    inputs: Literal["image"] | None = Field(default=None, description="image: the network is not told the task")


def load(argument: str, split: Split) -> ImageSource:
    """Images [n, h, w], [n, h, w, c] or [n, c, h, w] with labels; a test part where the file has one."""
    where, chosen = options("npz", argument, Options)
    path = file_of("npz", where, EXAMPLE)
    found = arrays(path, ("images", "labels"), KEYS)
    warnings = unused(path, KEYS, NO_VALIDATION)
    if ("test_images" in found) != ("test_labels" in found):
        raise UsageError(f"{path}: test_images and test_labels go together; only one of them is there")
    layout = _layout(path, found)
    images, labels = _channels_first(path, "images", found["images"], layout), found["labels"]
    tasks, test = _tasks(path, found, chosen), None
    if "test_images" in found:
        more = _channels_first(path, "test_images", found["test_images"], layout)
        if more.shape[1:] != images.shape[1:] or more.dtype != images.dtype:
            raise UsageError(
                f"{path}: images are {images.dtype} {images.shape[1:]}, test_images {more.dtype} {more.shape[1:]}"
            )
        for name, count in (("labels", len(images)), ("test_labels", len(more))):
            if found[name].ndim < 1 or len(found[name]) != count:
                raise UsageError(f"{path}: {name} have shape {found[name].shape}; needed are {count}, one per image")
        more_labels = found["test_labels"]
        if (labels.dtype.kind in "US") != (more_labels.dtype.kind in "US") or labels.shape[1:] != more_labels.shape[1:]:
            kinds = f"{labels.dtype} {labels.shape}, test_labels {more_labels.dtype} {more_labels.shape}"
            raise UsageError(f"{path}: labels are {kinds}; both need the same kind")
        test = np.arange(len(images), len(images) + len(more))
        images, labels = np.concatenate([images, more]), np.concatenate([labels, more_labels])
    if tasks is not None:
        return task_source(
            *(f"npz:{argument}", images, labels, tasks, split),
            test=test,
            told=chosen.inputs is None,
            renumber=chosen.labels == "renumber",
            warnings=warnings,
        )
    return image_source(
        *(f"npz:{argument}", images, labels, split),
        test=test,
        classes=texts(path, "classes", found),
        renumber=chosen.labels == "renumber",
        warnings=warnings,
    )


def _tasks(path: Path, found: dict[str, NDArray[Any]], chosen: Options) -> NDArray[Any] | None:
    """The task of each image, those of the test part last; None where there is one task."""
    if "task" not in found:
        if "test_task" in found:
            raise UsageError(f"{path}: has test_task and no task; both are needed where there are several tasks")
        if chosen.inputs is not None:
            raise UsageError(f"{path}: inputs=image is for images with an array task, which this file has not")
        return None
    if "classes" in found:
        raise UsageError(f"{path}: classes are of one task; with an array task, give labels as texts instead")
    parts = {"images": found["task"]}
    if "test_images" in found:
        if "test_task" not in found:
            raise UsageError(f"{path}: has test_images and no test_task; the task of each is needed")
        parts["test_images"] = found["test_task"]
    for name, tasks in parts.items():
        if tasks.shape != (len(found[name]),):
            key = "task" if name == "images" else "test_task"
            needed = (len(found[name]),)
            raise UsageError(f"{path}: {key} has shape {tasks.shape}; needed is {needed}, one per image of {name}")
    kinds = {tasks.dtype.kind in "US" for tasks in parts.values()}
    if len(kinds) > 1:
        raise UsageError(f"{path}: task and test_task are numbers and texts; both need the same kind")
    return np.concatenate(list(parts.values()))


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
