"""What the list of hosts is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nas_core.errors import UsageError
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
    """A listed host: the name of its file, the kinds of task that it learns, its sizes, and the dimensions that the
    tensors of its slots have after samples and channels."""

    name: str
    kinds: frozenset[str]
    search: Dims
    full: Dims
    positions: int = 2

    def check(self, task: Task) -> None:
        """Raises UsageError for a task that it does not learn."""
        if task.kind not in self.kinds:
            raise UsageError(
                f"host '{self.name}' learns {' and '.join(sorted(self.kinds))}, and the data is {task.kind}"
            )

    def sized(self, scale: str, said: Mapping[str, int]) -> dict[str, int]:
        """The fields of its `Dims`, where they are not said those of the scale. Raises UsageError for stages of a host
        that has none."""
        usual: Dims = getattr(self, scale)
        if usual.stages == 1 and said.get("stages", 1) != 1:
            raise UsageError(
                f"size: host '{self.name}' has no stages, and {said['stages']} are asked for; leave it out"
            )
        return {**usual._asdict(), **said}

    def network(self, task: Task, size: Mapping[str, int], layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
        """The untrained network of `Dims(**size)` with a layer (`search_spaces.hosts.network.host_network`)."""
        from search_spaces.hosts.slot import LayerSlot

        module = importlib.import_module(f"search_spaces.hosts.{self.name}")
        made: nn.Module = module.network(task, Dims(**size), LayerSlot(layer, batch, self.positions))
        return made
