"""Scales and shifts per channel in as few passes over the maps as torch has."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConditionalBatchNorm2d(nn.BatchNorm2d):
    """`(x, scale, shift)`: a batch normalisation whose scale and shift, `[channels]` or None, are given with the input.

    De Vries et al., "Modulating early visual processing by language", NeurIPS 2017, section 3.1, predict them from
    another input; here they are parameters of the layer that this one is a part of.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(channels, eps, momentum, affine=False)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        share = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if share is None:
                share = 1 / float(self.num_batches_tracked)
        own = self.training or self.running_mean is None
        return functional.batch_norm(
            x, self.running_mean, self.running_var, scale, shift, own, 0.0 if share is None else share, self.eps
        )


class Affine(nn.Module):
    """`(x, scale, shift)`: `x * scale + shift`, for x `[n, channels, h, w]` and the others `[channels]`.

    With gradients as a batch normalisation of mean 0 and variance 1, whose backward pass goes over the maps less often.
    Without, in place where `overwrites`: who gives x then needs it no more.
    """

    def __init__(self, overwrites: bool) -> None:
        super().__init__()
        self.overwrites = overwrites

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if self.overwrites and not torch.is_grad_enabled():
            return x.mul_(scale[:, None, None]).add_(shift[:, None, None])
        zeros, ones = torch.zeros_like(shift), torch.ones_like(scale)
        return functional.batch_norm(x, zeros, ones, scale, shift, training=False, eps=0.0)
