"""The size of a host, and its network with a layer in it: what spaces of layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from nas_core.config import SizeConfig
from nas_core.errors import UsageError, unknown
from nas_core.task import Task
from search_spaces.hosts import HOSTS
from search_spaces.hosts.host import Dims, Host

if TYPE_CHECKING:
    from torch import nn


class HostSize(SizeConfig):
    """The network that has the layer. What is not said is the host's own: by default the first host that learns the
    task, and of its width, depth and stages those of the scale."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {"scale": "full"}}
    later: ClassVar[frozenset[str]] = frozenset({"host", "scale"})

    host: str | None = Field(None, description="network that has the layer: resnet, mobilenet, ..., vgg, vit, mlp, gcn")
    scale: Literal["search", "full"] = Field("search", description="width, depth and stages where they are not said")
    width: int | None = Field(
        None, ge=1, le=4096, description="channels of the first stage; each later one doubles them"
    )
    depth: int | None = Field(None, ge=1, le=64, description="blocks, or layers, per stage")
    stages: int | None = Field(None, ge=1, le=6, description="stages; each but the first halves the resolution")

    def fitted(self, task: Task) -> Self:
        """With the host for a task, and with its width, depth and stages. Raises UsageError as `found` and `dims`."""
        name = default_host(task) if self.host is None else self.host
        host = found(name, task)
        return self.model_copy(update={"host": name, **self._dims(name, host)._asdict()})

    def at(self, name: str) -> Self:
        """The same of another host: what is not as its host has it stays."""
        own = HOSTS.get(self.host or "")
        usual = {} if own is None else getattr(own, self.scale)._asdict()
        reset = {key: None for key, value in usual.items() if getattr(self, key) == value}
        return self.model_copy(update={**reset, "host": name})

    def dims(self, task: Task) -> Dims:
        """Of the host for a task."""
        name = default_host(task) if self.host is None else self.host
        return self._dims(name, found(name, task))

    def _dims(self, name: str, host: Host) -> Dims:
        usual: Dims = getattr(host, self.scale)
        said = {key: getattr(self, key) for key in usual._fields if getattr(self, key) is not None}
        if usual.stages == 1 and said.get("stages", 1) != 1:
            raise UsageError(f"size: host '{name}' has no stages, so {self.stages} of them are none; leave out stages")
        return usual._replace(**said)


def known_hosts(task: Task | None = None) -> list[str]:
    """The listed hosts; those that learn a task."""
    return [name for name, host in HOSTS.items() if task is None or task.kind in host.kinds]


def default_host(task: Task) -> str:
    """The first host that learns a task. Raises UsageError where none does."""
    names = known_hosts(task)
    if not names:
        raise UsageError(f"no host learns {task.kind}")
    return names[0]


def found(name: str, task: Task) -> Host:
    """A host by its name. Raises UsageError for an unknown one, and for one that does not learn the task."""
    if name not in HOSTS:
        raise unknown("host", name, HOSTS)
    host = HOSTS[name]
    if task.kind not in host.kinds:
        raise UsageError(
            f"host '{name}' learns {' and '.join(sorted(host.kinds))}, and the data is {task.kind}; "
            f"use {', '.join(known_hosts(task)) or 'other data'}"
        )
    return host


def host_network(size: HostSize, task: Task, layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
    """The untrained network of a size's host with a layer in all of its slots: `layer(channels)` maps `[n, channels,
    *positions]` to the same shape. `batch`: whether it takes moments of the batch, which says what normalises where the
    host has no activation (`slot.LayerSlot`).

    `(n, *task.input_shape)` to `(n, task.outputs)`, of graphs `(nodes, features), (2, edges)` to `(nodes, outputs)`.
    Raises UsageError for an unknown host, and for one that does not learn the task.
    """
    name = default_host(task) if size.host is None else size.host
    return found(name, task).network(task, size.dims(task), layer, batch)
