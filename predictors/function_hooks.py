"""Sees what a network computes, whatever its modules look like: elementwise activations, and functions by name.

A torch function mode hears of `functional.relu(x)` as of `nn.ReLU`, also in place, which hooks on modules do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# fmt: off
ACTIVATIONS = frozenset({
    "celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
    "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink",
    "softsign", "tanh", "tanhshrink", "threshold",
})
# fmt: on
"""Functions of one number that networks use as non-linearities, by their names in `torch` and `functional`; with a
trailing underscore they work in place."""

LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
"""Functions of weighted layers: `(input, weight, bias=None, ...)`."""


class FunctionHooks(TorchFunctionMode):
    """While it is active, `activation(x)` hears of the input of every activation before it is computed. `instead`:
    functions that are computed by others, by name, with the arguments that these would get."""

    def __init__(
        self,
        activation: Callable[[Tensor], None] | None = None,
        instead: Mapping[str, Callable[..., Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self._activation, self._instead = activation, instead or {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._activation is not None and name.rstrip("_") in ACTIVATIONS:
            self._activation(args[0] if args else kwargs["input"])
        return self._instead.get(name, func)(*args, **kwargs)


def activations(model: torch.nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of all activations of `model(*inputs)`, copied, in the order in which they are computed."""
    found: list[Tensor] = []
    with torch.no_grad(), FunctionHooks(activation=lambda x: found.append(x.clone())):
        model(*inputs)
    return found
