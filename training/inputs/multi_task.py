"""Images that are asked for one of several tasks, as a deployed network gets them."""

from __future__ import annotations

from pydantic import Field

from nas_core.task import Head
from training.inputs.base import Tensors
from training.inputs.images import ImageInputs


class MultiTaskInputs(ImageInputs):
    """Images, and for each the number of the task that is asked for. Outputs are the logits of all heads side by side,
    `classes` their names, `TASK=CLASS`; those of the head that is asked for are the answer."""

    heads: tuple[Head, ...] = Field(min_length=2, description="tasks in the order of their numbers and outputs")
    told: bool = Field(default=True, description="whether the number of the task is the second input of the network")

    def normalised(self, tensors: Tensors) -> Tensors:
        """(images [n, c, h, w] from 0 to 1, tasks [n]) as the network itself sees them; there may be no tasks."""
        return *super().normalised(tensors[:1]), *tensors[1:]

    def restored(self, tensors: Tensors) -> Tensors:
        """The inverse of `normalised`."""
        return *super().restored(tensors[:1]), *tensors[1:]
