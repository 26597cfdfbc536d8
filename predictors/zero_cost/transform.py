"""Copies of a network made into something else: other operations by a torch function mode, other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

Rule = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]
"""`rule(function, args, kwargs)` gives what is computed instead of `function(*args, **kwargs)`."""

NORMALISATIONS = frozenset(
    {"batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"}
)
"""Functions that normalise, by their names in `torch` and `functional`; the modules of `nn` call them."""

_WITH_SCALE = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Rewrite(TorchFunctionMode):
    """While it is active, every torch function whose name is in `rules` is computed by its rule.

    It hears of `functional.relu(x)` as of `nn.ReLU`; rules themselves compute with the functions as they are.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = self._rules.get(getattr(func, "__name__", ""))
        return func(*args, **kwargs) if rule is None else rule(func, args, kwargs)


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str, default: Any = None) -> Any:
    """An argument of a function call, however it was given."""
    return args[position] if position < len(args) else kwargs.get(name, default)


def unchanged(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The rule that leaves an operation out: its input is its result, in memory of its own, as what follows may
    overwrite it."""
    return argument(args, kwargs, 0, "input").clone()


def reinitialise(model: nn.Module, generator: torch.Generator, deviation: Callable[[int], float]) -> None:
    """Gaussian weights of standard deviation `deviation(fan_in)`, no biases, normalisation as it starts."""
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "weight" and parameter.dim() >= 2:
                    values = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(values * deviation(parameter.numel() // len(parameter)))
                elif name == "weight" and isinstance(module, _WITH_SCALE):
                    parameter.fill_(1.0)
                elif name == "bias":
                    parameter.zero_()
            if isinstance(module, _NormBase):
                module.reset_running_stats()


def kaiming(fan_in: int) -> float:
    """The standard deviation that keeps the size of signals through ReLU (He et al., ICCV 2015, eq. 10)."""
    return float((2 / fan_in) ** 0.5)


def gaussian_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of a floating-point tensor."""
    return torch.randn(values.shape, generator=generator).to(values)
