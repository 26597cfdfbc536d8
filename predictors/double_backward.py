"""Batch normalisation whose second derivative is cheap: torch composes it of dozens of passes over the activations.

With x^ the normalised input, r one over the standard deviation, M the entries per channel and d the derivative of the
loss with respect to the input, which one fused kernel gives for the derivative g with respect to the output: of the
inner product v'd the derivative with respect to g is that kernel applied to v, called e, and with respect to x it is
-(r / M) (x^ sum(v d) + e sum(g x^) + d sum(v x^)), sums per channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` with the statistics of the batch, differentiable twice with respect to the input alone,
    not to weight and bias. In evaluation mode, and in low precision, `functional.batch_norm` itself."""
    if not training or input.dtype not in (torch.float32, torch.float64) or input.numel() == input.shape[1]:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    fixed = [None if value is None else value.detach() for value in (weight, bias)]
    output: Tensor = _Forward.apply(input, *fixed, running_mean, running_var, momentum, eps)
    return output


class _Forward(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        output, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Backward.apply(gradient, *ctx.saved_tensors, ctx.eps), *(None,) * 6


class _Backward(Function):
    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, eps: float
    ) -> Tensor:
        found, along = _kernel(gradient, x, weight, mean, scale, eps)
        ctx.save_for_backward(x, weight, mean, scale, found, along)
        ctx.eps = eps
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, found, along = ctx.saved_tensors
        second, across = _kernel(direction, x, weight, mean, scale, ctx.eps)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        product = (direction * found).sum([dimension for dimension in range(x.dim()) if dimension != 1])
        factor = -scale * (x.shape[1] / x.numel())
        slope = factor * scale * product
        by_input = second * (factor * along).view(shape)
        by_input.addcmul_(found, (factor * across).view(shape)).addcmul_(x, slope.view(shape))
        return second, by_input.sub_((slope * mean).view(shape)), None, None, None, None


def _kernel(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The derivative with respect to the input, and the sum of gradient times normalised input per channel."""
    found, along, _ = torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, None, None, mean, scale, True, eps, [True, True, False]
    )
    return found, along
