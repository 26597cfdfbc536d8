"""What the list of hosts is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn


class Dims(NamedTuple):
    """How large a host is: channels of the first stage, blocks or layers per stage, stages."""

    width: int
    depth: int
    stages: int = 1


@dataclass(frozen=True)
class Host:
    """A listed host: its module, the kinds of task that it learns, its sizes, and the dimensions that the tensors of
    its slots have after samples and channels."""

    module: str
    kinds: frozenset[str]
    search: Dims
    full: Dims
    positions: int = 2

    def network(self, task: Task, dims: Dims, layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
        from search_spaces.hosts.slot import LayerSlot

        made: nn.Module = importlib.import_module(self.module).network(
            task, dims, LayerSlot(layer, batch, self.positions)
        )
        return made
