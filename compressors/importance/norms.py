"""Batch normalisation by running statistics whose second derivatives are cheap: torch composes them of dozens of passes
over the activations.

With r one over the running deviation, m the running mean and d the derivative of the loss with respect to the output,
the first derivatives are weight r d (input), sum((x - m) r d) (weight) and sum(d) (bias), sums per channel. Those of
their inner product with directions vx, vw, vb are weight r vx + (x - m) r vw + vb (d), r vw d (input) and sum(vx r d)
(weight): each is a kernel that there is anyway, with other arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from training.rewrite import Rewrite


def cheap_norms() -> Rewrite:
    """While it is active, batch normalisations that use their running statistics are differentiable twice at little
    cost, with respect to input, weight and bias. What they compute, and its first derivatives, are torch's own."""
    return Rewrite({"batch_norm": _rule})


def _rule(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if function is not functional.batch_norm:
        return function(*args, **kwargs)
    return batch_norm(*args, **kwargs)


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
    """`functional.batch_norm`, itself where it uses the statistics of the batch, and where dtypes are mixed."""
    given = [input, running_mean, running_var, *(one for one in (weight, bias) if one is not None)]
    if training or len({None if one is None else one.dtype for one in given}) > 1:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    output: Tensor = _Forward.apply(input, weight, bias, running_mean, running_var, eps)
    return output


def _normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]


def _derivatives(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, variance: Tensor, eps: float, mask: list[bool]
) -> tuple[Tensor | None, ...]:
    found: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, mean, variance, None, None, False, eps, mask
    )
    return found


class _Forward(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return _normalised(x, weight, bias, mean, variance, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mask = list(ctx.needs_input_grad[:3])
        return *_Backward.apply(gradient, *ctx.saved_tensors, ctx.eps, mask), None, None, None


class _Backward(Function):
    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        mask: list[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gradient, x, weight, mean, variance)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return _derivatives(gradient, x, weight, mean, variance, eps, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> tuple[Any, ...]:
        gradient, x, weight, mean, variance = ctx.saved_tensors
        zero = torch.zeros_like(mean)
        scale, shape = (variance + ctx.eps).rsqrt(), (1, -1, *(1,) * (x.dim() - 2))
        weighted, shifted = (zero if one is None else one for one in (of_weight, of_bias))
        by_gradient = _normalised(x, weighted, shifted, mean, variance, ctx.eps)
        by_x = by_weight = None
        if of_weight is not None:
            by_x = gradient * (scale * of_weight).view(shape)
        if of_x is not None:
            by_gradient.addcmul_(of_x, (scale if weight is None else scale * weight).view(shape))
            if weight is not None:
                mask = [False, True, False]
                by_weight = _derivatives(gradient, of_x, weight, zero, variance, ctx.eps, mask)[1]
        return by_gradient, by_x, by_weight, *(None,) * 4
