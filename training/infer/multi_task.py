"""Images for a network with several tasks: which one is asked for is said behind the file, or in it; else all are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError, unknown
from training.data.files import arrays
from training.data.reference import options
from training.infer import images
from training.inputs.multi_task import MultiTaskInputs
from training.inputs.samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Options(Config):
    """What may follow the file, as in `image.png?task=parity`."""

    task: str | None = Field(default=None, description="the task that is asked for; all of them by default")


def read(inputs: MultiTaskInputs, argument: str) -> Samples:
    """One image file, or `npz:FILE`, each with `?task=NAME` or without. An npz file may have an array `task`, a name or
    a number per image. Where no task is said, a row for each of them.

    Raises NotFoundError, or UsageError naming file and fault.
    """
    where, chosen = options("", argument, Options)
    samples = images.read(inputs, where)
    names, (pixels, *_) = samples.names, samples.tensors
    numbers = _numbers(inputs, where, chosen.task, len(names))
    if numbers is None:
        count = len(inputs.heads)
        names = tuple(name for name in names for _ in inputs.heads)
        numbers, pixels = np.tile(np.arange(count), len(pixels)), np.repeat(pixels, count, axis=0)
    owner = np.repeat(np.arange(len(inputs.heads)), [head.outputs for head in inputs.heads])
    tensors = (pixels, numbers) if inputs.told else (pixels,)
    return replace(samples, names=names, tensors=tensors, possible=owner == numbers[:, None])


def numbers_of(asked: NDArray[Any], names: tuple[str, ...], where: object) -> NDArray[np.int64]:
    """The numbers [n] of tasks that are named or numbered. Raises UsageError for one that is none of `names`."""
    if np.issubdtype(asked.dtype, np.str_):
        place = {name: number for number, name in enumerate(names)}
        for name in np.unique(asked).tolist():
            if name not in place:
                raise UsageError(f"{where}: {unknown('task', name, names)}")
        return np.array([place[name] for name in asked.tolist()], dtype=np.int64)
    if asked.dtype.kind not in "iu":
        raise UsageError(f"{where}: tasks are {asked.dtype}; needed are names or whole numbers, one per image")
    if asked.size and not 0 <= asked.min() <= asked.max() < len(names):
        raise UsageError(f"{where}: tasks are {asked.min()} to {asked.max()}; the {len(names)} are numbered from 0")
    return asked.astype(np.int64)


def _numbers(inputs: MultiTaskInputs, where: str, chosen: str | None, count: int) -> NDArray[np.int64] | None:
    names = tuple(head.name for head in inputs.heads)
    if chosen is not None:
        return numbers_of(np.array([chosen] * count), names, f"'{where}'")
    scheme, _, rest = where.partition(":")
    if scheme != "npz":
        return None
    path = Path(rest).expanduser()
    found = arrays(path, (), ("task",))
    if "task" not in found:
        return None
    asked = found["task"]
    if asked.shape != (count,):
        raise UsageError(f"{path}: task has shape {asked.shape}; needed is {(count,)}, one per image")
    return numbers_of(asked, names, path)
