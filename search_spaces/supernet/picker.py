"""What a supernet is made of: `SupernetPicker` makes all operations of every group, `MixedOp` mixes them.

The picker of one architecture is `nas_core.relax.FixedPicker`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nas_core.choice import Value
from nas_core.deprecated import renamed
from nas_core.relax import Mix, Style
from search_spaces.layers.drop_path import drop_path
from search_spaces.layers.features import blend

Term = tuple[Tensor | None, Tensor]
"""A weight and what it is multiplied with; None: in full."""


class Current:
    """The mix of the pass that is running; shared by all routes of one supernet."""

    __slots__ = ("mix",)

    def __init__(self) -> None:
        self.mix: Mix | None = None

    def now(self) -> Mix:
        if self.mix is None:
            raise RuntimeError("a supernet's parts are run by the supernet, which is told how to mix them")
        return self.mix


@renamed(taken="selected")
@dataclass(frozen=True)
class MixedRoute:
    """The route of a group in a supernet."""

    name: str
    options: tuple[Value, ...]
    current: Current

    def selected(self) -> Sequence[tuple[Value, Tensor | None]]:
        mix = self.current.now()
        weights = mix.weights.get(self.name)
        return [(self.options[index], None if weights is None else weights[index]) for index in mix.active[self.name]]

    def drop_path(self) -> float:
        return self.current.now().drop_path

    def scalar(self) -> Tensor | None:
        mix = self.current.now()
        positions = mix.scalars.get(self.name)
        return mix.weights[self.name][list(positions)].sum() if positions else None


class MixedOp(nn.Module):
    """The operations of a group at one place. Answers the weighted sum of those that are run, None where none adds
    anything. An operation may have `weighted(weight, *inputs)`, which is cheaper than multiplying what it answers, and
    `zeros(*inputs)`, which makes it one that answers None otherwise (none)."""

    def __init__(self, route: MixedRoute, operations: Mapping[Value, Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.route = route
        self.operations = nn.ModuleList(make() for make in operations.values())
        self.positions = {option: position for position, option in enumerate(operations)}
        self.register_load_state_dict_pre_hook(_under_earlier_names)

    def forward(self, *inputs: Any) -> Tensor | None:
        return blend(self.terms(*inputs))

    def terms(self, *inputs: Any) -> list[Term]:
        """What the answer is the sum of, for a place that adds several groups up (`features.blend`)."""
        selected = self.route.selected()
        terms = []
        for option, weight in selected:
            operation = self.operations[self.positions[option]]
            term = weigh(operation, weight, *inputs)
            if term is not None:
                dropped = 0.0 if getattr(operation, "skip", False) else self.route.drop_path()
                terms.append((term[0], drop_path(term[1], dropped)))
        scalar = self.route.scalar()
        if scalar is not None:
            if not terms:  # a number needs a map to be added to
                terms.append((None, self.operations[self.positions[selected[0][0]]].zeros(*inputs)))
            terms.append((None, scalar))
        return terms


def _under_earlier_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Stored supernets may have the operations under the name that they had before."""
    for name in [name for name in state if name.startswith(f"{prefix}candidates.")]:
        state[f"{prefix}operations.{name.removeprefix(f'{prefix}candidates.')}"] = state.pop(name)


def weigh(module: nn.Module, weight: Tensor | None, *inputs: Any) -> Term | None:
    """What an operation answers and the weight it has yet to be multiplied with; None where it adds nothing."""
    if weight is not None and hasattr(module, "weighted"):
        answer, weight = module.weighted(weight, *inputs), None
    else:
        answer = module(*inputs)
    return None if answer is None else (weight, answer)


@dataclass
class SupernetPicker:
    """Makes every operation of every group, mixed by `current`; `groups` lists what it has met."""

    style: Style = Style.SUPERNET
    auxiliary: bool = False
    current: Current = field(default_factory=Current)
    groups: dict[str, tuple[Value, ...]] = field(default_factory=dict)

    def route(self, name: str, options: Sequence[Value]) -> MixedRoute:
        known = self.groups.setdefault(name, tuple(options))
        if known != tuple(options):
            raise ValueError(f"group '{name}' has the operations {known} at one place and {tuple(options)} at another")
        return MixedRoute(name, known, self.current)

    def module(self, name: str, operations: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module:
        return MixedOp(self.route(name, tuple(operations)), operations)


class NamePicker(SupernetPicker):
    """Lists the groups as a `SupernetPicker` does, and makes no operations: those of `argnp` are 2,000."""

    def module(self, name: str, operations: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module:
        self.route(name, tuple(operations))
        return nn.Identity()
