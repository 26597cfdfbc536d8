"""Copies of a network with other weights, and random inputs, for proxies that need no data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_WITH_SCALE = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


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
