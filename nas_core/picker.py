"""Pickers: what hands a space's description of a network the modules of its groups (`nas_core.relax`).

`FixedPicker` is that of one architecture; that of a supernet is `search_spaces.supernet.picker.SupernetPicker`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from nas_core.choice import Value
from nas_core.deprecated import renamed, told

if TYPE_CHECKING:
    from torch import Tensor, nn


class Style(StrEnum):
    """How layers are made: as the stand-alone network has them, or as supernets of the papers do, whose batch
    normalisation has no affine part, so that an operation's scale is its mixing weight alone."""

    STANDALONE = "standalone"
    SUPERNET = "supernet"

    @classmethod
    def _missing_(cls, value: object) -> Style | None:
        """Stored files may hold the words of before."""
        return cls(_STYLES[value]) if value in _STYLES else None

    def __eq__(self, other: object) -> bool:
        """Spaces of users may compare with the words of before."""
        if other in _STYLES:
            told(f"style {other!r}", f"{_STYLES[other]!r}")
            other = _STYLES[other]
        return str.__eq__(self, other)

    __hash__ = str.__hash__


_STYLES = {"full": "standalone", "search": "supernet"}


class Route(Protocol):
    """What a group takes in the pass that is running: read it in `forward`, never before."""

    @property
    def options(self) -> tuple[Value, ...]:
        """Those that the network provides for: one when it is built, all in a supernet."""
        ...

    def selected(self) -> Sequence[tuple[Value, Tensor | None]]:
        """The options that take part, each with its weight (scalar); None: in full."""
        ...

    def scalar(self) -> Tensor | None:
        """What weights of operations that are not run add to the group's output as a number (`Mix.scalars`)."""
        ...


class Picker(Protocol):
    """Hands a space's description the modules of its groups."""

    @property
    def style(self) -> Style: ...

    @property
    def auxiliary(self) -> bool:
        """Whether a second classifier, where the size asks for one, is part of the network in training."""
        ...

    def route(self, name: str, options: Sequence[Value]) -> Route:
        """Group `name` where it decides which tensors go where: inputs, leaves, widths."""
        ...

    def module(self, name: str, operations: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module | None:
        """Group `name` where it decides which operation is computed; None where the architecture has none there.

        The factories are called in the order of the options, so that weights depend on the seed alone. An operation
        that answers None adds nothing.
        """
        ...


@renamed(taken="selected")
@dataclass(frozen=True)
class FixedRoute:
    """The route of a group in a built network: one option, or none."""

    options: tuple[Value, ...]

    def selected(self) -> Sequence[tuple[Value, Tensor | None]]:
        return [(option, None) for option in self.options]

    def scalar(self) -> Tensor | None:
        return None


@dataclass(frozen=True)
class FixedPicker:
    """Builds what an assignment says; the network knows nothing of a search."""

    assignment: Mapping[str, Value | None]
    style: Style = Style.STANDALONE

    @property
    def auxiliary(self) -> bool:
        return self.style == Style.STANDALONE

    def route(self, name: str, options: Sequence[Value]) -> FixedRoute:
        value = self._value(name, options)
        return FixedRoute(() if value is None else (value,))

    def module(self, name: str, operations: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module | None:
        value = self._value(name, tuple(operations))
        return None if value is None else operations[value]()

    def _value(self, name: str, options: Sequence[Value]) -> Value | None:
        value = self.assignment[name]
        if value is not None and value not in options:
            raise ValueError(f"group '{name}' has no operation '{value}' ({', '.join(map(str, options))})")
        return value
