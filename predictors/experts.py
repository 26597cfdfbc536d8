"""Layers of experts in the passes of proxies that compare samples by the rows of their activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from search_spaces.layers.assigned import Merged
from search_spaces.layers.moe import MixtureOfExperts

WHY_NOT = "layers of experts compute rows of tokens sorted by expert, so that no activation tells the samples apart"


@contextmanager
def sorted_rows(model: nn.Module) -> Iterator[set[str]]:
    """The names of layers of experts that have computed other rows than those of the samples, each in its place, since
    the context was entered: all but merged experts."""
    found: set[str] = set()

    def watched(name: str) -> Any:
        def entered(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if not isinstance(arguments[1], Merged):
                found.add(name)

        return entered

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, MixtureOfExperts)]
    hooks = [layer.experts.register_forward_pre_hook(watched(name)) for name, layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
