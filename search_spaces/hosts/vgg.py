"""A plain VGG with slots for normalisation and activation.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1: 3x3
convolutions and max pooling, without shortcuts. Ours are the numbers of layers and stages, and the mean over the image
in the place of the dense layers.
"""

from __future__ import annotations

from torch import nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import Slot
from search_spaces.layers.blocks import BlockNetwork


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: stages of `dims.depth` convolutions with a slot each, twice as wide as
    the ones before and, but for the first stage, after pooling that halves the resolution."""
    layers: list[nn.Module] = []
    inputs = task.images()[0]
    for stage in range(dims.stages):
        own = dims.width * 2**stage
        if stage:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        for _ in range(dims.depth):
            layers += [nn.Conv2d(inputs, own, 3, padding=1, bias=False), slot(own)]
            inputs = own
    return BlockNetwork(layers[0], layers[1:], inputs, task.outputs)
