"""What a layer of so many channels is given, told before its forward pass."""

from __future__ import annotations

from torch import Tensor, nn


def check(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A hook before the forward pass of a layer that has `channels`; not within it, so that the pass is straight lines
    where it is written as Python. Raises ValueError for what is not `[n, channels, *positions]`."""
    x, channels = inputs[0], layer.channels
    if x.dim() < 2 or x.shape[1] != channels:
        raise ValueError(
            f"a layer of {channels} channels takes [n, {channels}, *positions], and was given {list(x.shape)}"
        )
