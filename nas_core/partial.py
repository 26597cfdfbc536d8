"""Spaces in which a part of every network is given: the same architectures, of which a search decides the rest.

A supernet of one mixes what is left alone. `HasDivision` is of spaces whose networks grow from one such to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.picker import FixedRoute, Picker, Route, Style
from nas_core.relax import Relaxable, group_kind
from nas_core.space import SearchSpace
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class HasDivision(Protocol):
    """Whose networks grow by division: what a small one has is given in the next round, and what is new is searched
    (proliferation: Cai et al., CVPR 2022). The spaces of all rounds are relaxable, and derive architectures of this
    one."""

    rounds: int  # how many there can be

    def initial(self) -> SearchSpace:
        """The space of the first round."""
        ...

    def divide(self, arch: Architecture) -> SearchSpace:
        """The space of the round after the one that `arch` is derived from. Raises UsageError where there is none."""
        ...


class Partial(SearchSpace):
    """The architectures of `whole` that have in every group of `given` this operation, or none of them (None).

    `options` are those of the groups that are given, as the network of `whole` names them. Architectures are those of
    `whole`, by whose name they go.
    """

    def __init__(
        self, whole: SearchSpace, name: str, given: Mapping[str, Value | None], options: Mapping[str, Sequence[Value]]
    ) -> None:
        assert isinstance(whole, Relaxable)
        self.whole, self.name, self.given = whole, name, dict(given)
        self.version, self.tasks, self.Size = whole.version, whole.tasks, whole.Size
        self.choices: tuple[Choice, ...] = whole.choices
        self._strengths = {
            group: [1.0 if value == option else -1.0 for option in options[group]] for group, value in given.items()
        }

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return self.whole.allowed(choice, prefix)

    def illegal(self, arch: Architecture) -> str | None:
        reason = self.whole.illegal(arch)
        if reason is None:
            taken = self.whole.assignment(arch)
            for group, value in self.given.items():
                if taken[group] != value:
                    return f"its group '{group}' has {taken[group]}, where {value} is given"
        return reason

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """That of the whole space, whose given groups are no longer the picker's."""
        return self.whole.network(_Given(picker, self.given), task, size)

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        return self.whole.assignment(arch)

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """What is given has strength 1, what is not to be taken -1."""
        return self.whole.derive({**strengths, **self._strengths})

    def group_kind(self, group: str) -> str:
        return group_kind(self.whole, group)


@dataclass(frozen=True)
class _Given:
    """Hands out what is given, and of all other groups what another picker does."""

    picker: Picker
    given: Mapping[str, Value | None]

    @property
    def style(self) -> Style:
        return self.picker.style

    @property
    def auxiliary(self) -> bool:
        return self.picker.auxiliary

    def route(self, name: str, options: Sequence[Value]) -> Route:
        if name not in self.given:
            return self.picker.route(name, options)
        value = self.given[name]
        return FixedRoute(() if value is None else (value,))

    def module(self, name: str, operations: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module | None:
        if name not in self.given:
            return self.picker.module(name, operations)
        value = self.given[name]
        return None if value is None else operations[value]()
