"""What modules of a network read and answer in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the module `name`: its positional arguments, and its answer."""

    name: str
    given: tuple[Any, ...]
    answer: Any


def calls(network: nn.Module, modules: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> list[Call]:
    """The calls of some modules in `network(*inputs)`, in the order in which they end, without gradients."""
    found: list[Call] = []

    def note(name: str) -> Callable[..., None]:
        return lambda _, given, answer: found.append(Call(name, given, answer))

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
