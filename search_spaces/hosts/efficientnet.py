"""A small EfficientNet with slots for normalisation and activation.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1: inverted
residuals as in MobileNetV2, with squeeze and excitation to a quarter of the block's input, kernels of 3 and 5 in turn
from stage to stage. Ours are the numbers of blocks and stages, the stem of stride 1, a last layer four times as wide as
the last stage, and ReLU within the excitation. Without the dropping of blocks.
"""

from __future__ import annotations

from torch import nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.mobilenet import EXPANSION, LAST, InvertedResidual
from search_spaces.hosts.slot import Slot
from search_spaces.layers.blocks import BlockNetwork

SQUEEZED = 4  # the block's inputs by this


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: stages of `dims.depth` blocks, each but the first twice as wide as the
    one before it and at half its resolution. The first stage does not expand."""
    channels, width = task.images()[0], dims.width
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), slot(width))
    blocks: list[nn.Module] = []
    inputs = width
    for stage in range(dims.stages):
        for position in range(dims.depth):
            own, stride, kernel = width * 2**stage, 2 if stage and not position else 1, 5 if stage % 2 else 3
            expansion = EXPANSION if stage else 1
            squeezed = max(1, inputs // SQUEEZED)
            blocks.append(InvertedResidual(inputs, own, stride, slot, expansion, kernel, squeezed))
            inputs = own
    last = nn.Sequential(nn.Conv2d(inputs, LAST * inputs, 1, bias=False), slot(LAST * inputs))
    return BlockNetwork(stem, [*blocks, last], LAST * inputs, task.outputs)
