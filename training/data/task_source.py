"""Images of which each is asked for one of several tasks, split and checked, which `bind` puts on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import Head, multi_task
from training.data.labels import class_labels
from training.data.loading import DEFAULT, Loading
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.inputs.multi_task import MultiTaskInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data


@dataclass(frozen=True, eq=False)
class TaskSource(ImageSource):
    """Images whose `labels` are numbers of outputs, of all heads side by side; `classes` name them, TASK=CLASS."""

    @cached_property
    def head_of_output(self) -> NDArray[np.int64]:
        """[outputs]: the number of the head that each output belongs to."""
        return np.repeat(np.arange(len(self.task.heads)), [head.outputs for head in self.task.heads])

    @cached_property
    def asked(self) -> NDArray[np.int64]:
        """[n]: the number of the task that each image is asked for."""
        return self.head_of_output[self.labels]

    @cached_property
    def inputs(self) -> MultiTaskInputs:
        told = len(self.task.inputs) > 1
        return MultiTaskInputs(**super().inputs.model_dump(), heads=self.task.heads, told=told)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        from training.data.bound_tasks import BoundTasks

        return BoundTasks(self, device, loading)


def task_source(
    reference: str,
    images: NDArray[Any],
    labels: NDArray[Any],
    tasks: NDArray[Any],
    split: Split,
    *,
    test: NDArray[np.int64] | None = None,
    value_range: tuple[float, float] | None = None,
    told: bool = True,
    renumber: bool = False,
    warnings: Sequence[str] = (),
) -> TaskSource:
    """A checked and split image set from images [n, c, h, w], the task [n] that each is asked for, a text or a number,
    and its label for that task, as `class_labels` takes them for the images of one task.

    Tasks are in the order of their names or numbers; a number alone is called `taskN`. Parts have an equal share of
    every class of every task. `told`: whether the task is an input of the network. All else is as of `image_source`.
    Raises UsageError for what cannot be learned from, such as a single task.
    """
    where = f"data '{reference}'"
    if tasks.shape != (len(images),) or tasks.dtype.kind not in "iuSU":
        raise UsageError(
            f"{where}: tasks are {tasks.dtype} {tasks.shape}; needed are names or whole numbers, one per image: "
            f"{(len(images),)}"
        )
    if labels.ndim != 1 or labels.shape != tasks.shape:
        raise UsageError(f"{where}: labels are {labels.dtype} {labels.shape}; with tasks, one per image is needed")
    if np.issubdtype(tasks.dtype, np.bytes_):
        tasks = np.char.decode(tasks, "utf-8")
    found = np.unique(tasks)
    if len(found) < 2:
        raise UsageError(
            f"{where}: there is only one task, '{found[0]}'; leave the tasks out, and it is an ordinary classification"
        )
    heads, numbers = [], np.zeros(len(images), dtype=np.int64)
    names: list[str] = []
    told_of: list[str] = []
    for task in found.tolist():
        name = task if isinstance(task, str) else f"task{task}"
        if not name.isidentifier():
            raise UsageError(f"{where}: task '{name}' is called by no word that a metric could use; rename it")
        mine = tasks == task
        read = class_labels(_own(labels[mine]), int(mine.sum()), "images", f"{where}, task '{name}'", renumber=renumber)
        numbers[mine] = read.numbers + len(names)
        heads.append(Head(name=name, outputs=read.outputs))
        names += [f"{name}={one}" for one in read.classes or map(str, range(read.outputs))]
        told_of += [f"task '{name}': {text}" for text in read.warnings]
    made = image_source(
        *(reference, images, numbers, split),
        test=test,
        classes=names,
        value_range=value_range,
        warnings=(*warnings, *told_of),
    )
    values = {name: getattr(made, name) for name in ImageSource.__dataclass_fields__}
    return TaskSource(**{**values, "task": multi_task(made.task.input_shape, heads, told=told)})


def _own(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels of one task; texts that are whole numbers in all of them are these, as they share an array with texts."""
    if labels.dtype.kind not in "US":
        return labels
    texts = np.char.strip(labels.astype(str))
    return texts.astype(np.int64) if bool(np.char.isdecimal(texts).all()) else texts
