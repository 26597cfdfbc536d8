"""How networks are compared: their answers, by how much these differ, and numbers behind which nothing hides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

POSITIVE = ("weight", "running_var")
"""What scales, or is divided by."""


def answers(output: Any) -> list[Tensor]:
    """All tensors of what a network answers."""
    return [one for one in torch.utils._pytree.tree_leaves(output) if isinstance(one, Tensor)]


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest number of both; infinite for other shapes and for
    what is not a number."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    one, other = one.detach().double(), other.detach().double()
    apart, largest = float((one - other).abs().max()), max(float(one.abs().max()), float(other.abs().max()))
    return float("inf") if apart != apart else apart / largest if largest else 0.0


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Other scales, shifts and running statistics, in place, so that zeros and ones among them hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            found = [(name, one) for name, one in module.named_parameters(recurse=False) if one.dim() == 1]
            found += [(name, one) for name, one in module.named_buffers(recurse=False) if name.startswith("running_")]
            for name, tensor in found:
                if tensor.is_floating_point():
                    drawn = torch.rand(tensor.shape, generator=generator)
                    tensor.copy_(drawn + 0.5 if name in POSITIVE else drawn - 0.5)
