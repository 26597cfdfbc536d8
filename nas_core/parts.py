"""Spaces whose networks hold parts that are worth having alone, such as a layer that was searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.errors import UsageError, unknown
from nas_core.space import SearchSpace
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class PartSource:
    """A part as Python source that needs torch alone.

    `code`: classes and functions that may use `math`, `torch`, `nn`, `functional` and `Tensor`; `made`: the call that
    makes the part, untrained; `shape`: that of an input for it; `usage`: lines that say how it is used elsewhere.
    Parameters have the names that they have in the part.
    """

    code: str
    made: str
    shape: tuple[int, ...]
    usage: str


@runtime_checkable
class HasParts(Protocol):
    """`nas export STUDY:N --part NAME --format python`."""

    def parts(self, arch: Architecture) -> Sequence[str]:
        """The names of the parts of a legal architecture's network."""
        ...

    def part(self, network: nn.Module, arch: Architecture, name: str) -> nn.Module:
        """That part of a network which the space has built; of several alike the first."""
        ...

    def part_source(self, part: nn.Module, arch: Architecture, name: str) -> PartSource:
        """What makes a module that computes what `part` does, in training and in evaluation mode."""
        ...


OF_TASK = "task="
"""What the name of the part begins with that is the network of one task."""


@runtime_checkable
class HasTaskNetworks(Protocol):
    """`nas export STUDY:N --part task=NAME`: a trained network of several tasks as the smaller one of one of them."""

    def why_no_task_network(self, arch: Architecture) -> str | None:
        """Why the network of a legal architecture cannot be cut to a task; None: it can."""
        ...

    def task_network(self, network: nn.Module, arch: Architecture, number: int) -> nn.Module:
        """The network of the task of this number: images alone to the logits of its head, as `network` gives them for
        it. Its parameters and buffers have the same names and shapes whatever the weights of `network` are."""
        ...


def task_network(space: SearchSpace, network: nn.Module, arch: Architecture, task: Task, part: str) -> nn.Module:
    """The part `task=NAME` of a network. Raises UsageError where there is none."""
    number = head_number(task, part)
    if not isinstance(space, HasTaskNetworks):
        raise UsageError(
            f"the networks of space '{space.name}' are not made to be cut to a task; leave out --part {part}"
        )
    if (why := space.why_no_task_network(arch)) is not None:
        raise UsageError(f"--part {part}: {why}")
    return space.task_network(network, arch, number)


def head_number(task: Task, part: str) -> int:
    """The number of the head that `task=NAME` names. Raises UsageError for one that there is not."""
    if not task.heads:
        raise UsageError(f"--part {part}: {task.kind} has one task; leave it out")
    names = [head.name for head in task.heads]
    name = part.removeprefix(OF_TASK)
    if name not in names:
        raise unknown("task", name, names)
    return names.index(name)


def with_parts(space: SearchSpace, arch: Architecture, name: str) -> HasParts:
    """The space as one that has the part. Raises UsageError where it has none, or none of this name."""
    if not isinstance(space, HasParts):
        raise UsageError(f"space '{space.name}' has no parts to be had alone; leave out --part {name}")
    known = space.parts(arch)
    if name not in known:
        raise unknown(f"part of space '{space.name}'", name, known)
    return space
