"""A small pre-activation ResNet with slots for normalisation and activation.

He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016: in each block a slot comes before
either convolution, and one comes after the last block.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import Slot
from search_spaces.layers.blocks import BlockNetwork


class PreActivation(nn.Module):
    """`(n, inputs, h, w)` to `(n, outputs, ceil(h / stride), ceil(w / stride))`: slot, 3x3, slot, 3x3, and the input
    added; where the shapes differ, a 1x1 convolution of what the first slot gives."""

    def __init__(self, inputs: int, outputs: int, stride: int, slot: Slot) -> None:
        super().__init__()
        self.first = slot(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = slot(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        kept = x if self.shortcut is None else self.shortcut(y)
        return kept + self.conv2(self.second(self.conv1(y)))


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: `dims.depth` blocks per stage."""
    return resnet(task.images()[0], task.outputs, dims.width, (dims.depth,) * dims.stages, slot)


def resnet(channels: int, outputs: int, width: int, depths: Sequence[int], slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: stages of `depths` blocks, each but the first twice as wide as the one
    before it and at half its resolution."""
    blocks: list[nn.Module] = []
    inputs = width
    for stage, depth in enumerate(depths):
        for position in range(depth):
            own = width * 2**stage
            blocks.append(PreActivation(inputs, own, 2 if stage and not position else 1, slot))
            inputs = own
    stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return BlockNetwork(stem, [*blocks, slot(inputs)], inputs, outputs)
