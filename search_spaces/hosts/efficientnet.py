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
from search_spaces.hosts.mobilenet import EXPANSION, InvertedResidual, staged
from search_spaces.hosts.slot import Slot

SQUEEZED = 4  # the block's inputs by this


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`, in stages as MobileNetV2. The first stage does not expand."""

    def block(stage: int, inputs: int, outputs: int, stride: int) -> nn.Module:
        expansion, kernel, squeezed = EXPANSION if stage else 1, 5 if stage % 2 else 3, max(1, inputs // SQUEEZED)
        return InvertedResidual(inputs, outputs, stride, slot, expansion, kernel, squeezed)

    return staged(task, dims, slot, block)
