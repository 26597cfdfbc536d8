"""Where a layer goes in a host, and tensors as it wants them.

Every layer, and so every slot, maps `[n, channels, *positions]` to the same shape: of images n counts the images, of
tokens the sequences, of nodes the graphs (one), of rows the rows, which have no positions. `ChannelsLast` brings tokens
and nodes into that form. So moments mean the same in every host: of a channel of a sample over its positions, of a
sample, of a group of its channels, of a channel of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Protocol

from torch import Tensor, nn

from nas_core.errors import UsageError

GROUPS = 32
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the dimensions of positions


def groups_of(channels: int) -> int:
    """The number of groups that channels are in."""
    return gcd(channels, GROUPS)


class Slot(Protocol):
    """Makes the layer of a place."""

    def __call__(self, channels: int, act: bool = True) -> nn.Module:
        """The layer for so many channels, `[n, channels, *positions]` to the same shape. `act=False`: where a host has
        a normalisation without an activation, such as a linear bottleneck."""
        ...


@dataclass(frozen=True)
class LayerSlot:
    """The slot of one layer. Places without an activation get a plain normalisation of the layer's family: batch
    normalisation where it has moments of the batch, else group normalisation, whose number of groups is the greatest
    common divisor of the channels and 32.

    `positions` are the dimensions of a tensor after samples and channels, two of images.
    """

    layer: Callable[[int], nn.Module]
    batch: bool
    positions: int

    def __call__(self, channels: int, act: bool = True) -> nn.Module:
        if act:
            return self.layer(channels)
        return BATCH_NORMS[self.positions](channels) if self.batch else nn.GroupNorm(groups_of(channels), channels)


class Place(nn.Module):
    """What stands for a layer where a host is looked at: it hands on what it is given, or raises UsageError."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise UsageError(
                f"gives slot({self.channels}) a tensor {list(x.shape)}, and a layer takes [n, {self.channels}, "
                "*positions]; where channels are last, put ChannelsLast of search_spaces.hosts.slot around it"
            )
        return x


class ChannelsLast(nn.Module):
    """A layer on `[n, *positions, channels]`, with its shape as output; `[nodes, channels]` are the nodes of one graph,
    with `graph=True`, which is a sample then."""

    def __init__(self, layer: nn.Module, graph: bool = False) -> None:
        super().__init__()
        self.layer, self.graph = layer, graph

    def forward(self, x: Tensor) -> Tensor:
        if self.graph:
            return self.layer(x.t().unsqueeze(0)).squeeze(0).t()
        return self.layer(x.movedim(-1, 1)).movedim(1, -1)
