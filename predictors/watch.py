"""Sees what a network computes, whatever its modules look like: elementwise activations and weighted layers.

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


class Watch(TorchFunctionMode):
    """While it is active, `activation(x)` hears of the input of every activation before it is computed, and
    `layer(weight, output)` of the output of every convolution and linear layer. `instead`: functions that are computed
    by others, by name."""

    def __init__(
        self,
        activation: Callable[[Tensor], None] | None = None,
        layer: Callable[[Tensor, Tensor], None] | None = None,
        instead: Mapping[str, Callable[..., Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self._activation, self._layer, self._instead = activation, layer, instead or {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._activation is not None and name.rstrip("_") in ACTIVATIONS:
            self._activation(args[0] if args else kwargs["input"])
        found = self._instead.get(name, func)(*args, **kwargs)
        if self._layer is not None and name in LAYERS:
            self._layer(args[1] if len(args) > 1 else kwargs["weight"], found)
        return found


def activations(model: torch.nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of all activations of `model(*inputs)`, copied, in the order in which they are computed."""
    found: list[Tensor] = []
    with torch.no_grad(), Watch(activation=lambda x: found.append(x.clone())):
        model(*inputs)
    return found
