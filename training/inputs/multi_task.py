"""Images that are asked for one of several tasks, as a deployed network gets them."""

from __future__ import annotations

from pydantic import Field

from nas_core.task import IMAGE_CLASSIFICATION, Head
from training.inputs.base import Tensors
from training.inputs.images import ImageInputs


class MultiTaskInputs(ImageInputs):
    """Images, and for each the number of the task that is asked for. Outputs are the logits of all heads side by side,
    `classes` their names, `TASK=CLASS`; those of the head that is asked for are the answer."""

    heads: tuple[Head, ...] = Field(min_length=2, description="tasks in the order of their numbers and outputs")
    told: bool = Field(default=True, description="whether the number of the task is the second input of the network")

    def of_task(self, number: int) -> ImageInputs:
        """Those of the network of one task, which is given the image alone and answers with the classes of its head."""
        head, start = self.heads[number], sum(head.outputs for head in self.heads[:number])
        classes = [name.removeprefix(f"{head.name}=") for name in self.classes[start : start + head.outputs]]
        own = {**self.model_dump(include=set(ImageInputs.model_fields)), "kind": IMAGE_CLASSIFICATION}
        return ImageInputs(**{**own, "classes": tuple(classes)})

    def normalised(self, tensors: Tensors) -> Tensors:
        """(images [n, c, h, w] from 0 to 1, tasks [n]) as the network itself sees them; there may be no tasks."""
        return *super().normalised(tensors[:1]), *tensors[1:]

    def restored(self, tensors: Tensors) -> Tensors:
        """The inverse of `normalised`."""
        return *super().restored(tensors[:1]), *tensors[1:]
