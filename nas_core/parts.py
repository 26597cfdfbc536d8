"""Spaces whose networks hold parts that are worth having alone, such as a layer that was searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.errors import UsageError, unknown
from nas_core.space import SearchSpace

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


def with_parts(space: SearchSpace, arch: Architecture, name: str) -> HasParts:
    """The space as one that has the part. Raises UsageError where it has none, or none of this name."""
    if not isinstance(space, HasParts):
        raise UsageError(f"space '{space.name}' has no parts to be had alone; leave out --part {name}")
    known = space.parts(arch)
    if name not in known:
        raise unknown(f"part of space '{space.name}'", name, known)
    return space
