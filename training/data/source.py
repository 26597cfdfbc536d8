"""A data set as plain arrays, split and checked, which `bind` puts on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import Task, graph_task, image_task
from training.data.labels import Labels, absent, class_labels
from training.data.loading import DEFAULT, Loading
from training.data.protocol import Source as Source
from training.data.split import UNLABELLED, Parts, Split, divide, split_hash, stratified
from training.inputs import GraphInputs, ImageInputs
from training.inputs.graphs import Normalise, normalised
from training.inputs.images import Fit, observed_range

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

Floats = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images [n, c, h, w] (uint8 or float32, as found) with labels [n] int64 and the parts they belong to."""

    reference: str
    task: Task
    split_hash: str
    images: NDArray[Any]
    labels: NDArray[np.int64]
    parts: Parts
    classes: tuple[str, ...]
    value_range: tuple[float, float]  # the stored numbers of black and white
    fit: Fit = "stretch"
    files: tuple[str, ...] = ()  # a name per image, to speak of it
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @cached_property
    def inputs(self) -> ImageInputs:
        return image_inputs(self.task, self.value_range, self.statistics, self.fit, self.classes)

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        return class_counts(self.labels, self.parts, self.task.outputs)

    @cached_property
    def statistics(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation per channel over the training part, in units of the stored values.

        A network sees `(image - mean) / deviation`; a constant channel has deviation 1.
        """
        return channel_statistics(self.images, self.parts.train)

    def name(self, number: int) -> str:
        """How to speak of an image."""
        return self.files[number] if self.files else f"image {number}"

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        from training.data.bound import BoundImages

        return BoundImages(self, device, loading)


@dataclass(frozen=True, eq=False)
class GraphSource:
    """One graph: features [nodes, f] float32, labels [nodes] (-1: none), directed edges [2, e] int64."""

    reference: str
    task: Task
    split_hash: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    edge_index: NDArray[np.int64]
    parts: Parts
    classes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    normalise: Normalise = "none"  # what has been done to the features
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @cached_property
    def inputs(self) -> GraphInputs:
        return GraphInputs(
            kind=self.task.kind,
            features=self.task.input_shape[0],
            feature_names=self.feature_names,
            normalise=self.normalise,
            classes=_class_names(self.classes, self.task),
        )

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        return class_counts(self.labels, self.parts, self.task.outputs)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """The whole graph is one batch of every part, or training batches are samples of it (`Loading.fan_out`);
        augmentation and layout are for images."""
        from training.data.bound import BoundGraph

        return BoundGraph(self, device, loading)


def image_source(
    reference: str,
    images: NDArray[Any],
    labels: NDArray[Any],
    split: Split,
    *,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    classes: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
    fit: Fit = "stretch",
    files: Sequence[str] = (),
    renumber: bool = False,
    warnings: Sequence[str] = (),
) -> ImageSource:
    """A checked and split image set from images [n, c, h, w] and their labels, as `class_labels` takes them.

    `valid` and `test` are index lists into them where the data set has such parts. uint8 stays, other numbers become
    float32; samples that a limit leaves out are dropped. `value_range` are the numbers of black and white (by default
    read off the images), `fit` is how images of another size were brought to this one. `files` name the images, to
    speak of them; `warnings` are sentences that the user of the data should read.
    Raises UsageError for what cannot be learned from.
    """
    where = f"data '{reference}'"
    if images.ndim != 4 or 0 in images.shape:
        raise UsageError(f"{where}: images have shape {images.shape}; needed are [n, channels, height, width]")
    if images.dtype != np.uint8:
        images = to_floats(images, "images", where)
    read = class_labels(labels, len(images), "images", where, classes=classes, renumber=renumber)
    labels = read.numbers
    black, white = observed_range(images) if value_range is None else value_range
    if not black < white:
        raise UsageError(f"{where}: the value range is {black:g} to {white:g}; black is below white")
    parts = split_into(where, labels, split, valid=valid, test=test)
    name = split_hash(labels, parts, images)
    used = np.sort(np.concatenate([part for _, part in parts.items()]))
    if len(used) < len(images):
        images, labels = images[used], labels[used]
        files = [files[number] for number in used] if files else ()
        parts = Parts(*(np.searchsorted(used, part) for _, part in parts.items()))
    _, c, h, w = images.shape
    task = image_task((c, h, w), read.outputs)
    images = np.require(images, requirements=["C", "W"])  # a tensor may share this memory
    told = (*warnings, *read.warnings, *absent_classes(labels, parts, read))
    return ImageSource(
        *(reference, task, name, images, labels, parts, read.classes, (black, white), fit), tuple(files), told
    )


def graph_source(
    reference: str,
    features: NDArray[Any],
    labels: NDArray[Any],
    edge_index: NDArray[Any],
    split: Split,
    *,
    train: NDArray[np.int64] | None = None,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    classes: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    normalise: Normalise = "none",
    renumber: bool = False,
    warnings: Sequence[str] = (),
) -> GraphSource:
    """A checked and split graph from features [n, f], labels as `class_labels` takes them, directed edges [2, e].

    Public index lists are used where given: all three; train and test (validation is drawn from train); or train
    alone (the other labelled nodes become validation and test, half each). `normalise` is done to the features here.
    """
    where = f"data '{reference}'"
    features, edge_index = checked_graph(where, features, edge_index, feature_names, normalise)
    nodes = len(features)
    read = class_labels(labels, nodes, "nodes", where, classes=classes, unlabelled=True, renumber=renumber)
    labels = read.numbers
    train, valid, test = public(where, labels, split, train, valid, test)
    parts = split_into(where, labels, split, train=train, valid=valid, test=test)
    task = graph_task(features.shape[1], read.outputs, nodes, edge_index.shape[1])
    name = split_hash(labels, parts, features, edge_index)
    told = (*warnings, *read.warnings, *absent_classes(labels, parts, read))
    return GraphSource(
        *(reference, task, name, features, labels, edge_index, parts),
        *(read.classes, tuple(feature_names), normalise, told),
    )


def checked_graph(
    where: str, features: NDArray[Any], edge_index: NDArray[Any], feature_names: Sequence[str], normalise: Normalise
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features [n, f], normalised, and directed edges [2, e] of one graph. Raises UsageError for what is none."""
    if features.ndim != 2 or 0 in features.shape:
        raise UsageError(f"{where}: features have shape {features.shape}; needed are [nodes, features]")
    features = normalised(to_floats(features, "features", where), normalise)
    if feature_names and len(feature_names) != features.shape[1]:
        raise UsageError(f"{where}: {len(feature_names)} feature names for {features.shape[1]} features")
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype.kind not in "iu":
        raise UsageError(
            f"{where}: edge_index is {edge_index.dtype} {edge_index.shape}; needed are integers [2, edges]"
        )
    return features, to_index(edge_index, len(features), "edge_index", where)


def public(
    where: str, labels: NDArray[np.int64], split: Split, *given: NDArray[Any] | None, things: str = "nodes"
) -> tuple[Any, ...]:
    """The public parts of a graph or of many (`things`), checked; with train alone the other labelled ones are halved.

    Raises UsageError for lists that name something else, or something twice, and for other combinations of parts.
    """
    names = ("train", "valid", "test")
    parts = [
        None if part is None else to_index(part, len(labels), name, where, things)
        for name, part in zip(names, given, strict=True)
    ]
    for name, part in zip(names, parts, strict=True):
        if part is not None and part.ndim != 1:
            raise UsageError(f"{where}: the {name} {things} have shape {part.shape}; needed is a list of their numbers")
        if part is not None and (labels[part] == UNLABELLED).any():
            raise UsageError(f"{where}: the {name} {things} include one without a label")
    listed = np.concatenate([np.zeros(0, dtype=np.int64), *(part for part in parts if part is not None)])
    seen = np.bincount(listed, minlength=len(labels))
    if (seen > 1).any():
        twice = f"{things[:-1]} {int(np.argmax(seen > 1))}"
        raise UsageError(f"{where}: {twice} is listed twice in the train, valid and test {things}")
    present = tuple(name for name, part in zip(names, parts, strict=True) if part is not None)
    if present == ("train",):
        others = np.flatnonzero((labels != UNLABELLED) & (seen == 0))
        first, second = stratified(labels[others], 0.5, generator(split.seed, "split", "others"))
        return parts[0], others[first], others[second]
    if present not in ((), ("train", "test"), names):
        raise UsageError(
            f"{where}: has {' and '.join(present)} {things}; give all three, train and test, train, or none"
        )
    return tuple(parts)


def split_into(
    where: str,
    labels: NDArray[np.int64],
    split: Split,
    *,
    train: NDArray[np.int64] | None = None,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    classes: bool = True,
) -> Parts:
    """`divide`, whose errors name the data."""
    try:
        return divide(labels, split, train=train, valid=valid, test=test, classes=classes)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _class_names(named: tuple[str, ...], task: Task) -> tuple[str, ...]:
    """The names that the data give; classes without names are called by their numbers."""
    return named or tuple(str(number) for number in range(task.outputs))


def to_floats(values: NDArray[Any], name: str, where: str) -> NDArray[np.float32]:
    """Numbers as float32. Raises UsageError for anything else, and for those that are not finite."""
    if values.dtype.kind not in "iufb":
        raise UsageError(f"{where}: {name} are {values.dtype}; needed are numbers")
    values = np.require(values, dtype=np.float32, requirements=["C", "W"])  # a tensor may share this memory
    if not np.isfinite(values).all():
        raise UsageError(f"{where}: {name} hold NaN or infinite values")
    return values


def to_index(index: NDArray[Any], nodes: int, name: str, where: str, things: str = "nodes") -> NDArray[np.int64]:
    """Numbers of nodes, or of other `things`, as int64. Raises UsageError for what is none."""
    index = np.ascontiguousarray(index)
    if index.dtype.kind not in "iu":
        raise UsageError(f"{where}: {name} is {index.dtype}; needed are integers")
    if index.size and (index.min() < 0 or index.max() >= nodes):
        outside = int(index.max() if index.max() >= nodes else index.min())
        raise UsageError(f"{where}: {name} names {things[:-1]} {outside}; the {nodes} {things} are numbered from 0")
    return index.astype(np.int64)


def absent_classes(labels: NDArray[np.int64], parts: Parts, read: Labels) -> list[str]:
    """What to tell of classes without a sample in a part, by their names."""
    names = read.classes or tuple(map(str, range(read.outputs)))
    return absent(class_counts(labels, parts, read.outputs), names, read.gaps)


def class_counts(labels: NDArray[np.int64], parts: Parts, outputs: int) -> Mapping[str, tuple[int, ...]]:
    """Samples per class for each part."""
    return {name: tuple(np.bincount(labels[part], minlength=outputs).tolist()) for name, part in parts.items()}


def channel_statistics(images: NDArray[Any], rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean and standard deviation per channel over some of the images [n, c, h, w]; that of a constant channel is 1."""
    channels = images.shape[1]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(rows), 2048):
        chunk = images[rows[start : start + 2048]].astype(np.float64)
        total += chunk.sum(axis=(0, 2, 3))
        squares += np.square(chunk).sum(axis=(0, 2, 3))
        count += chunk.size // channels
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    # Rounding leaves about 1e-8 of a constant channel's mean; dividing by it would blow up noise.
    deviation[deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1.0
    return tuple(mean.tolist()), tuple(deviation.tolist())


def image_inputs(
    task: Task,
    value_range: tuple[float, float],
    statistics: tuple[Floats, Floats],
    fit: Fit,
    classes: tuple[str, ...],
) -> ImageInputs:
    """What a network needs to know of such images; `statistics` are in the numbers of the data."""
    low, high = value_range
    channels, height, width = task.input_shape
    mean, deviation = statistics
    return ImageInputs(
        kind=task.kind,
        mode="L" if channels == 1 else "RGB" if channels == 3 else None,
        channels=channels,
        height=height,
        width=width,
        fit=fit,
        value_range=value_range,
        mean=tuple((value - low) / (high - low) for value in mean),
        deviation=tuple(value / (high - low) for value in deviation),
        classes=_class_names(classes, task),
    )
