"""A small MobileNetV2 with slots for normalisation and activation.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 1:
in each block a slot comes after the expansion and after the depthwise convolution, and the bottleneck is only
normalised. Ours are the numbers of blocks and stages, the stem of stride 1, and a last layer four times as wide as the
last stage.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import Slot
from search_spaces.layers.blocks import BlockNetwork, SqueezeExcite

EXPANSION = 6
LAST = 4


class InvertedResidual(nn.Module):
    """`(n, inputs, h, w)` to `(n, outputs, ceil(h / stride), ceil(w / stride))`: 1x1 to `expansion` times as many
    channels, slot, depthwise kernel x kernel, slot, squeeze and excitation to `squeezed` channels (0: none), 1x1,
    normalisation; the input is added where it has the shape of the output."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, slot: Slot, expansion: int, kernel: int = 3, squeezed: int = 0
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = nn.Conv2d(inputs, wide, 1, bias=False)
        self.first = slot(wide)
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.second = slot(wide)
        self.excite = SqueezeExcite(wide, squeezed) if squeezed else None
        self.project = nn.Conv2d(wide, outputs, 1, bias=False)
        self.norm = slot(outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.depthwise(self.first(self.expand(x))))
        if self.excite is not None:
            y = self.excite(y)
        y = self.norm(self.project(y))
        return x + y if self.residual else y


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`."""

    def block(stage: int, inputs: int, outputs: int, stride: int) -> nn.Module:
        return InvertedResidual(inputs, outputs, stride, slot, EXPANSION)

    return staged(task, dims, slot, block)


def staged(task: Task, dims: Dims, slot: Slot, block: Callable[[int, int, int, int], nn.Module]) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: stages of `dims.depth` blocks, each but the first twice as wide as the
    one before it and at half its resolution. `block` makes one of the number of its stage, inputs, outputs, stride."""
    channels, width = task.images()[0], dims.width
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), slot(width))
    blocks: list[nn.Module] = []
    inputs = width
    for stage in range(dims.stages):
        for position in range(dims.depth):
            own = width * 2**stage
            blocks.append(block(stage, inputs, own, 2 if stage and not position else 1))
            inputs = own
    last = nn.Sequential(nn.Conv2d(inputs, LAST * inputs, 1, bias=False), slot(LAST * inputs))
    return BlockNetwork(stem, [*blocks, last], LAST * inputs, task.outputs)
