"""Relaxation: a space writes its network once, against a picker; build, supernet and costs are three pickers.

A *group* is what an architecture decides at one or more places of a network: its operations share one vector of
mixing weights, wherever they stand (all cells of a kind share their groups).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.config import SizeConfig
from nas_core.deprecated import told
from nas_core.picker import FixedPicker, Picker, Route, Style
from nas_core.space import SearchSpace
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "FixedPicker",
    "Group",
    "HasGroupKinds",
    "Mix",
    "Picker",
    "Relaxable",
    "Route",
    "Style",
    "derive_by_choice",
    "group_kind",
    "not_relaxable",
]


@dataclass(frozen=True, slots=True)
class Mix:
    """How one pass through a supernet mixes its operations.

    `active`: per group the positions of the operations that are run, as numbers of the host, so that nothing waits for
    the device; an operation that is not run gets no gradient. `weights`: per group a vector [operations] they are
    multiplied with; a group without one takes its operations in full. `scalars`: positions of operations that are not
    run and whose weight is added to the output as a number, all the same (Dong and Yang, CVPR 2019, as published).
    `drop_path`: the probability with which what an operation answers is dropped for a sample (Larsson et al., ICLR
    2017); skips are never dropped.
    """

    active: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop_path: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of a group, in order; `weighted` says which have parameters somewhere in the network.

    The others are parameter-free: skip, pooling, none. (A skip of stride 2 has weights and still counts as a skip: its
    module says so by `skip = True`.) `zero` says which add nothing (none; `zero = True`), `skip` which hand their input
    on.
    """

    name: str
    options: tuple[Value, ...]
    weighted: tuple[bool, ...]
    zero: tuple[bool, ...] = ()
    skip: tuple[bool, ...] = ()


@runtime_checkable
class Relaxable(Protocol):
    """A space whose networks a supernet can hold. `SearchSpace.build` is `network` with the `FixedPicker` of an
    architecture's assignment, where the space has no other one."""

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """The network, as `SearchSpace.build` describes it, with every searched part taken from `picker`."""
        ...

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """The architecture with the strongest operations, strengths being mixing weights per group in the order of its
        options: the inverse of `assignment` for strengths that are one-hot. Always legal."""
        ...


@runtime_checkable
class HasGroupKinds(Protocol):
    """A relaxable space whose groups are of several kinds. Who decides group by group decides each kind apart."""

    def group_kind(self, group: str) -> str:
        """Of what kind a group is, by its name."""
        ...


def group_kind(space: SearchSpace, group: str) -> str:
    """The kind of a group; the same for all of a space that does not tell them apart."""
    return space.group_kind(group) if isinstance(space, HasGroupKinds) else ""


def not_relaxable(space: SearchSpace) -> str | None:
    """Why one-shot strategies cannot search the space; None: they can."""
    if isinstance(space, Relaxable):
        return None
    return getattr(space, "why_not_relaxable", None) or "it does not describe its network against a picker"


def derive_by_choice(space: SearchSpace, strengths: Mapping[str, Sequence[float]]) -> Architecture:
    """`Relaxable.derive` where every group is a choice: the strongest allowed option of each, the first of equals."""
    from nas_core.moves import complete

    options = {choice.name: choice.options for choice in space.choices}

    def strongest(choice: object, allowed: tuple[Value, ...]) -> Value:
        name = choice.name  # type: ignore[attr-defined]
        score = dict(zip(options[name], strengths[name], strict=True))
        return max(allowed, key=lambda option: score[option])

    return complete(space, {}, strongest)


def __getattr__(name: str) -> Any:
    if name == "Pick":
        told("nas_core.relax.Pick", "Picker")
        return Picker
    raise AttributeError(f"module 'nas_core.relax' has no attribute '{name}'")
