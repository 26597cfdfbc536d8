"""What flows through the weights of a network where every path from input to output counts with a positive weight.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
NeurIPS 2020: with absolute parameters, without normalisation and for inputs of ones, R is the sum of the outputs, and
theta dR/dtheta is the flow through a weight.

Deviations: activations that saturate pass their input on. A gate, a product with a sigmoid, is open: its own weights
count nothing. A difference of two signals is their sum, so that no two paths cancel (Chebyshev). What recurrent layers
compute inside stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.task import Task
from training.rewrite import NORMALISATIONS, Rewrite, argument, unchanged
from training.tasks import kind_of

SATURATING = frozenset({"hardsigmoid", "hardtanh", "logsigmoid", "relu6", "sigmoid", "softsign", "tanh"})
GATES = frozenset({"hardsigmoid", "sigmoid"})
_VIEWS = ("__getitem__", "expand", "expand_as", "reshape", "unsqueeze", "view", "view_as")


def ones(inputs: Sequence[Tensor], task: Task) -> tuple[Tensor, ...]:
    """Inputs of ones in the shape of one sample, of a graph for all nodes; what else a network is given of it stays. Of
    integers, which have no size, the first sample."""
    first, *others = kind_of(task).first(inputs, 1)
    if not first.is_floating_point():
        return first, *others
    shape = first.shape
    flat = torch.ones(shape, dtype=torch.float64, device=first.device)
    return flat, *(value.double().abs() if value.is_floating_point() else value for value in others)


def flow_gradients(network: nn.Module, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """dR/dtheta for each of the weights of a network that is `positive`, 0 where nothing flows."""
    with torch.enable_grad(), Rewrite(_Rules().rules):
        output = network(*inputs)
        output = output[0] if isinstance(output, tuple) else output
    return list(torch.autograd.grad(output.sum(), list(weights), allow_unused=True, materialize_grads=True))


def positive(model: nn.Module) -> nn.Module:
    """The network itself in float64 and evaluation mode, with absolute parameters and buffers."""
    model = model.double().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.abs_()
    return model


class _Rules:
    """What is computed instead, so that every path counts with a positive weight."""

    def __init__(self) -> None:
        # Gates by the id of their tensor, which is kept so that no other tensor gets the id.
        self._gates: dict[int, Tensor] = {}
        self.rules = {
            **dict.fromkeys(NORMALISATIONS, unchanged),
            **dict.fromkeys(SATURATING - GATES, unchanged),
            **{f"{name}_": unchanged for name in SATURATING - GATES},
            **dict.fromkeys(GATES, self._gate),
            **{f"{name}_": self._gate for name in GATES},
            **dict.fromkeys(_VIEWS, self._view),
            **dict.fromkeys(("mul", "mul_", "multiply"), self._product),
            **dict.fromkeys(("sub", "sub_", "subtract"), self._difference),
            **dict.fromkeys(("neg", "negative"), self._negative),
        }

    def _gate(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        value: Tensor = argument(args, kwargs, 0, "input")
        return self._mark(value.clone())  # another tensor: the gate's input is no gate

    def _view(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        found = function(*args, **kwargs)
        return self._mark(found) if id(args[0]) in self._gates else found

    def _mark(self, value: Tensor) -> Tensor:
        self._gates[id(value)] = value
        return value

    def _product(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first, second = args[0], argument(args, kwargs, 1, "other")
        if _both_flow(first, second):
            if id(second) in self._gates:
                return first + torch.zeros_like(second)  # in the shape of the product
            if id(first) in self._gates:
                return second + torch.zeros_like(first)
        return function(*args, **kwargs)

    def _difference(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # What needs no gradient is a constant, such as the maximum that a softmax takes off.
        if not _both_flow(args[0], argument(args, kwargs, 1, "other")):
            return function(*args, **kwargs)
        add = torch.Tensor.add_ if function.__name__ == "sub_" else torch.add
        return add(*args, **kwargs)

    def _negative(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = argument(args, kwargs, 0, "input")
        return value if value.requires_grad else function(*args, **kwargs)


def _both_flow(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.requires_grad and second.requires_grad
