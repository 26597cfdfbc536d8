"""Images with the number of the task that each is asked for, on a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch

from nas_core.batch import Batch
from training.data.bound import BoundImages, Images
from training.data.loading import Loading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Asked(Images, Protocol):
    """What is bound of images with tasks (`training.data.task_source.TaskSource`)."""

    @property
    def head_of_output(self) -> NDArray[np.int64]: ...


class BoundTasks(BoundImages):
    """Images and tasks for the fit loop (`nas_core.batch.Data`): inputs are (images [b, c, h, w] float32, tasks [b]
    int64), or the images alone where the network is not told."""

    def __init__(self, source: Asked, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source, device, loading)
        self._told = len(source.task.inputs) > 1
        self._heads = torch.from_numpy(source.head_of_output).to(self.device)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """As those of images."""
        for batch in super().batches(part, epoch, seed):
            inputs = (*batch.inputs, self._heads[batch.target]) if self._told else batch.inputs
            yield replace(batch, inputs=inputs, heads=self._heads)
