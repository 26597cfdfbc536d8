"""The layers of `activation`: a plain normalisation, then the activation of an architecture."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.activation.units import Library, Tree, computed
from search_spaces.hosts.slot import GROUPS
from search_spaces.layers.shapes import check

TORCH = Library(
    torch,
    functional.relu,
    torch.sigmoid,
    functional.softplus,
    lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)),  # `special.ndtr`, which no file in Python can be written with
)


class TreeActivation(nn.Module):
    """A tree on `[n, channels, h, w]`, with b per channel where a unit reads it; computed in float32 under autocast."""

    def __init__(self, tree: Tree, channels: int) -> None:
        super().__init__()
        self.tree = tree
        trained = any(unit.trained for unit in tree)
        self.b = nn.Parameter(torch.ones(channels, 1, 1)) if trained else None

    def forward(self, x: Tensor) -> Tensor:
        return computed(self.tree, TORCH, x, self.b).expand(x.shape)


class NormalisedActivation(nn.Module):
    """Normalisation and activation, `[n, channels, *positions]` to the same shape and type: that of the batch, or of
    groups of the channels, as many as the greatest common divisor of the channels and 32. Raises ValueError for another
    shape, and in training mode for moments of the batch of one value per channel."""

    def __init__(self, channels: int, activation: nn.Module, batch: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if batch else nn.GroupNorm(gcd(channels, GROUPS), channels)
        self.activation = activation
        self.register_forward_pre_hook(check)

    @property
    def channels(self) -> int:
        return len(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.to(self.norm.weight.dtype).reshape(x.shape[0], x.shape[1], -1, 1)
        return self.activation(self.norm(maps)).reshape(x.shape).to(x.dtype)
