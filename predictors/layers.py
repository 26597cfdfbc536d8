"""The weighted layers of a labelled pass: what they compute, and their part in the second derivative.

The inner product of a layer's weights with H g, for the Hessian H and the gradient g of all weights, costs less than
H g itself. Let a scale c = 1 multiply the weights of a layer, W = c V. The derivative of sum <g, dL/dV> with respect to
c is theta' (H g) + |g|^2 of that layer, as dL/dV = c dL/dW. It needs inner products of what flows through the output of
the layer, and none of the two convolutions that give the derivative with respect to its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from predictors.function_hooks import LAYERS


@dataclass(frozen=True, slots=True)
class Tap:
    """The output of a layer, as it was before anything overwrote it in place."""

    name: str
    value: Tensor
    edge: GradientEdge
    linear: bool  # channels are its last dimension, not the second


class Stage(Enum):
    """What a backward pass is for. A function of one's own is not told what torch needs of it."""

    INPUTS = auto()  # the Jacobian
    WEIGHTS = auto()  # the gradient of the loss
    SCALES = auto()  # the second derivative


@dataclass(slots=True)
class Backward:
    """The stage of the pass, and the weights whose second derivative is asked for as it is."""

    stage: Stage = Stage.INPUTS
    direct: frozenset[str] = frozenset()


class Layers:
    """Computes the layers whose weights are `named`, through `instead` (see `FunctionHooks`). `source`: the
    network's input.

    `tapped`: keep their outputs. `scaled`: give each weight a scale, and a leaf of its own that shares its memory;
    what reaches the gradient of the parameter itself then comes from elsewhere than these layers.
    """

    def __init__(self, named: Mapping[str, Tensor], source: Tensor, *, tapped: bool, scaled: bool) -> None:
        self._names = {id(weight): name for name, weight in named.items()}
        self._source, self._tapped, self._scaled = source, tapped, scaled
        self.taps: list[Tap] = []
        self.leaves: dict[str, Tensor] = {}
        self.scales: dict[str, Tensor] = {}
        self.backward = Backward()

    @property
    def instead(self) -> dict[str, Callable[..., Tensor]]:
        """The functions of layers, by name."""
        if not (self._tapped or self._scaled):
            return {}
        return {name: partial(self._compute, getattr(functional, name)) for name in LAYERS}

    def _compute(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Tensor:
        name = self._names.get(id(weight))
        if name is None or not torch.is_grad_enabled():
            return function(input, weight, bias, *arguments, **options)
        if not self._scaled:
            output = function(input, weight, bias, *arguments, **options)
        else:
            output = self._scale(name, function, input, weight, bias, *arguments, **options)
        if self._tapped:
            value = output.detach().clone()
            self.taps.append(Tap(name, value, get_gradient_edge(output), weight.dim() == 2))
        return output

    def _scale(
        self,
        name: str,
        function: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *arguments: Any,
        **options: Any,
    ) -> Tensor:
        leaf, dimensions = self._leaf(name, weight), weight.dim() - 2
        if dimensions and input.dim() == weight.dim():
            geometry = _geometry(dimensions, *arguments, **options)
            if geometry is not None:
                first = input is self._source
                output: Tensor = _Convolution.apply(
                    input, leaf, self.scales[name], geometry, name, first, self.backward
                )
                return output if bias is None else output + bias.view(-1, *[1] * dimensions)
        plain = function(input, leaf, None, *arguments, **options)
        output = _Scale.apply(plain, self.scales[name], self.backward)
        return output if bias is None else output + bias.view(-1, *[1] * dimensions)

    def _leaf(self, name: str, weight: Tensor) -> Tensor:
        if name not in self.leaves:
            self.leaves[name] = weight.detach().requires_grad_()
            self.scales[name] = torch.ones((), dtype=torch.float64, device=weight.device, requires_grad=True)
        return self.leaves[name]


def _geometry(
    dimensions: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...] | None:
    """Stride, padding, dilation, and groups; None for a padding given by name."""
    if isinstance(padding, str):
        return None
    each = ([value] * dimensions if isinstance(value, int) else list(value) for value in (stride, padding, dilation))
    return *each, groups


def _convolve(input: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    *shape, groups = geometry
    return torch.convolution(input, weight, None, *shape, False, [0] * len(shape[0]), groups)


def _transposed(
    gradient: Tensor, input: Tensor, weight: Tensor, geometry: tuple[Any, ...], by_input: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The derivatives of <gradient, convolution> with respect to input and weight."""
    if not (by_input or by_weight):
        return None, None
    *shape, groups = geometry
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        gradient, input, weight, None, *shape, False, [0] * len(shape[0]), groups, [by_input, by_weight, False]
    )
    return found[0], found[1]


class _Convolution(Function):
    """A convolution of `input` with scale * weight, scale being 1, that computes only what its stage is for."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        scale: Tensor,
        geometry: Any,
        name: str,
        first: bool,
        backward: Backward,
    ) -> Tensor:
        output = _convolve(input, weight, geometry)
        ctx.save_for_backward(input, weight, scale, output.clone())
        ctx.geometry, ctx.name, ctx.stage, ctx.first = geometry, name, backward, first
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, scale, output = ctx.saved_tensors
        stage = ctx.stage.stage
        by_input = ctx.needs_input_grad[0] and (stage is Stage.INPUTS or not ctx.first)
        by_weight = stage is Stage.WEIGHTS or (stage is Stage.SCALES and ctx.name in ctx.stage.direct)
        found = _ConvolutionBackward.apply(
            gradient, input, weight, scale, by_input, by_weight, ctx.geometry, ctx.name, ctx.stage
        )
        by_scale = _inner(gradient, output) if stage is Stage.SCALES else None
        return *found, by_scale, *(None,) * 4


class _ConvolutionBackward(Function):
    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        input: Tensor,
        weight: Tensor,
        scale: Tensor,
        by_input: bool,
        by_weight: bool,
        geometry: Any,
        name: str,
        backward: Backward,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, input, weight)
        ctx.geometry, ctx.name, ctx.stage = geometry, name, backward
        return _transposed(gradient, input, weight, geometry, by_input, by_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, input_way: Tensor | None, weight_way: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, input, weight = ctx.saved_tensors
        geometry = ctx.geometry
        parts = [] if input_way is None else [_convolve(input_way, weight, geometry)]
        by_input = by_weight = None
        if weight_way is not None:
            parts.append(_convolve(input, weight_way, geometry))
            by_input, _ = _transposed(gradient, input, weight_way, geometry, ctx.needs_input_grad[1], False)
        if input_way is not None and ctx.name in ctx.stage.direct:
            _, by_weight = _transposed(gradient, input_way, weight, geometry, False, True)
        if not parts:
            return (None,) * 9
        by_gradient = parts[0] if len(parts) == 1 else parts[0].add_(parts[1])
        return by_gradient, by_input, by_weight, _inner(by_gradient, gradient), *(None,) * 5


class _Scale(Function):
    """Hands on scale * product, scale being 1."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, scale: Tensor, backward: Backward) -> Tensor:
        ctx.save_for_backward(product.clone(), scale)
        ctx.stage = backward
        return product.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        product, scale = ctx.saved_tensors
        by_scale = _inner(gradient, product) if ctx.stage.stage is Stage.SCALES else None
        return _ScaleBackward.apply(gradient, scale), by_scale, None


class _ScaleBackward(Function):
    """Hands on scale * gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return gradient.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return direction, _inner(direction, gradient)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return torch.dot(one.detach().reshape(-1), other.detach().reshape(-1)).double()
