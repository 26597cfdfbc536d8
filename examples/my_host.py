"""Two networks of your own in which layers are searched: `--hosts examples/my_host.py:net,examples/my_host.py:plain`.

`net` puts the layer where it calls `slot(channels)`. `plain` knows nothing of layers: its pairs of `BatchNorm2d` and
ReLU are found and replaced.
"""

from torch import nn


class Block(nn.Module):
    """A residual block: the layer, a convolution, and the input added."""

    def __init__(self, width, slot):
        super().__init__()
        self.layer = slot(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.conv(self.layer(x))


def net(task, slot, width=12):
    channels = task.input_shape[0]
    stem = nn.Conv2d(channels, width, 3, stride=2, padding=1)
    blocks = (Block(width, slot) for _ in range(2))
    head = (slot(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, task.outputs))
    return nn.Sequential(stem, *blocks, *head)


def plain(task):
    return nn.Sequential(
        nn.Conv2d(task.input_shape[0], 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, task.outputs),
    )  # fmt: skip
