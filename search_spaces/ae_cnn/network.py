"""Torch layers of AE-CNN (Sun et al., "Completely Automated CNN Architecture Design Based on Blocks", IEEE TNNLS
31(4), 2020, section III): its three kinds of units and the network that is a list of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from search_spaces.operators.blocks.bottleneck import Bottleneck


def resnet_unit(inputs: int, blocks: int, channels: int) -> nn.Sequential:
    """`blocks` residual bottlenecks 1x1-3x3-1x1 of equal width and stride 1: `[b, inputs, h, w]` to
    `[b, channels, h, w]`. Each convolution is followed by BN; the first shortcut is projected where widths differ."""
    widths = [inputs, *[channels] * (blocks - 1)]
    return nn.Sequential(*(Bottleneck(width, channels, 1, channels, 1) for width in widths))


class PreActivated(nn.Sequential):
    """BN, ReLU, convolution without bias that keeps the resolution: `[b, inputs, h, w]` to `[b, outputs, h, w]`."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        )


class DenseLayer(nn.Module):
    """Bottleneck layer of a DenseNet (Huang et al., CVPR 2017): 1x1 to four times the growth, 3x3 to the growth,
    appended to the input: `[b, inputs, h, w]` to `[b, inputs + growth, h, w]`."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.narrow = PreActivated(inputs, 4 * growth, 1)
        self.grow = PreActivated(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.grow(self.narrow(x))], 1)


def dense_unit(inputs: int, layers: int, growth: int, max_input: int) -> nn.Sequential:
    """`layers` dense layers, after a 1x1 to `max_input` channels where `inputs` are more: `[b, inputs, h, w]` to
    `[b, min(inputs, max_input) + layers * growth, h, w]`."""
    reduced = min(inputs, max_input)
    body: list[nn.Module] = [PreActivated(inputs, reduced, 1)] if inputs > max_input else []
    body += [DenseLayer(reduced + layer * growth, growth) for layer in range(layers)]
    return nn.Sequential(*body)


def pooling_unit(mode: str) -> nn.Module:
    """2x2 pooling of stride 2, "max" or "avg": `[b, c, h, w]` to `[b, c, ceil(h / 2), ceil(w / 2)]`.

    At an odd size the last window holds the pixels that exist, so a single pixel stays as it is.
    """
    if mode == "max":
        return nn.MaxPool2d(2, 2, ceil_mode=True)
    return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)


class UnitNetwork(nn.Module):
    """Units one after the other, then a linear classifier of the flattened map: `[b, channels, h, w]` to
    `[b, outputs]`."""

    def __init__(self, units: Iterable[nn.Module], features: int, outputs: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*units)
        self.classifier = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.units(x).flatten(1))
