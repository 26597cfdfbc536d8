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
from search_spaces.hosts.own import OwnHost, is_own

if TYPE_CHECKING:
    from torch import nn


class HostSize(SizeConfig):
    """The network that has the layer. What is not said is the host's own: by default the first host that learns the
    task, and of its width, depth and stages those of the scale."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {"scale": "full"}}
    later: ClassVar[frozenset[str]] = frozenset({"host", "scale", *Dims._fields})

    host: str | None = Field(None, description="network that has the layer: resnet, mobilenet, ..., vgg, vit, mlp, gcn")
    scale: Literal["search", "full"] = Field("search", description="width, depth and stages where they are not said")
    width: int | None = Field(
        None, ge=1, le=4096, description="channels of the first stage; each later one doubles them"
    )
    depth: int | None = Field(None, ge=1, le=64, description="blocks, or layers, per stage")
    stages: int | None = Field(None, ge=1, le=6, description="stages; each but the first halves the resolution")

    def fitted(self, task: Task) -> Self:
        """With the host for a task, and with its width, depth and stages. Raises UsageError as `found`, and for sizes
        that the host has not."""
        name, host = self._host(task)
        return self.model_copy(update={"host": name, **host.sized(self.scale, self._said())})

    def at(self, name: str) -> Self:
        """The same of another host: what is not as its host has it stays."""
        own = HOSTS.get(self.host or "")
        usual = {} if own is None else own.sized(self.scale, {})
        reset = {key: None for key, value in usual.items() if getattr(self, key) == value}
        return self.model_copy(update={**reset, "host": name})

    def network(self, task: Task, layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
        """The untrained network of the host with a layer in all of its slots: `layer(channels)` maps `[n, channels,
        *positions]` to the same shape. `batch`: whether it takes moments of the batch, which says what normalises where
        the host has no activation (`slot.LayerSlot`).

        `(n, *task.input_shape)` to `(n, task.outputs)`, of graphs `(nodes, features), (2, edges)` to `(nodes,
        task.outputs)`.
        Raises UsageError as `fitted`, and for a host of the user's own that is none.
        """
        host = self._host(task)[1]
        return host.network(task, host.sized(self.scale, self._said()), layer, batch)

    def _host(self, task: Task) -> tuple[str, Host | OwnHost]:
        name = default_host(task) if self.host is None else self.host
        return name, found(name, task)

    def _said(self) -> dict[str, int]:
        return {key: value for key in Dims._fields if (value := getattr(self, key)) is not None}


def known_hosts(task: Task | None = None) -> list[str]:
    """The listed hosts; those that learn a task."""
    return [name for name, host in HOSTS.items() if task is None or task.kind in host.kinds]


def default_host(task: Task) -> str:
    """The first host that learns a task. Raises UsageError where none does."""
    names = known_hosts(task)
    if not names:
        raise UsageError(f"no host learns {task.kind}")
    return names[0]


def found(name: str, task: Task) -> Host | OwnHost:
    """A host by its name, or a user's own by its reference. Raises UsageError for an unknown one, and for one that does
    not learn the task; NotFoundError for a missing file or object."""
    if name not in HOSTS and not is_own(name):
        raise unknown("host", name, HOSTS)
    host = OwnHost(name) if is_own(name) else HOSTS[name]
    try:
        host.check(task)
    except UsageError as error:
        raise UsageError(f"{error}; use {', '.join(known_hosts(task)) or 'other data'}") from error
    return host


def host_network(size: HostSize, task: Task, layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
    """See `HostSize.network`."""
    return size.network(task, layer, batch)
