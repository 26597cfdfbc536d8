"""A network of your own for several tasks at once:

nas train my_tasks.py:Net --data tasks:digits
nas export Net-tasks-1:0
nas infer export 'image.png?task=parity'
"""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.task import Task


class Net(nn.Module):
    """A body that all tasks share, what the task adds to its features, and one head per task, side by side."""

    def __init__(self, task: Task, width: int = 32) -> None:
        super().__init__()
        channels, _, _ = task.input_shape
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.asked = nn.Embedding(len(task.heads), width)
        self.heads = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Images [b, c, h, w] and the numbers of their tasks [b] to the logits of all heads [b, task.outputs]."""
        return self.heads(self.body(image).mean((2, 3)) + self.asked(task))
