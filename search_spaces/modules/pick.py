"""The pickers: `Chosen` builds the network of an architecture, `Mixing` one that holds all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nas_core.choice import Value
from nas_core.relax import Mix, Style
from search_spaces.modules.drop_path import drop_path
from search_spaces.modules.features import blend

Term = tuple[Tensor | None, Tensor]
"""A weight and what it is multiplied with; None: in full."""


@dataclass(frozen=True)
class Fixed:
    """The route of a group in a built network: one option, or none."""

    options: tuple[Value, ...]

    def taken(self) -> Sequence[tuple[Value, Tensor | None]]:
        return [(option, None) for option in self.options]

    def scalar(self) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Chosen:
    """Builds what an assignment says; the network knows nothing of a search."""

    assignment: Mapping[str, Value | None]
    style: Style = "full"

    @property
    def auxiliary(self) -> bool:
        return self.style == "full"

    def route(self, name: str, options: Sequence[Value]) -> Fixed:
        value = self._value(name, options)
        return Fixed(() if value is None else (value,))

    def module(self, name: str, candidates: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module | None:
        value = self._value(name, tuple(candidates))
        return None if value is None else candidates[value]()

    def _value(self, name: str, options: Sequence[Value]) -> Value | None:
        value = self.assignment[name]
        if value is not None and value not in options:
            raise ValueError(f"group '{name}' has no candidate '{value}' ({', '.join(map(str, options))})")
        return value


class Current:
    """The mix of the pass that is running; shared by all routes of one supernet."""

    __slots__ = ("mix",)

    def __init__(self) -> None:
        self.mix: Mix | None = None

    def now(self) -> Mix:
        if self.mix is None:
            raise RuntimeError("a supernet's parts are run by the supernet, which is told how to mix them")
        return self.mix


@dataclass(frozen=True)
class Open:
    """The route of a group in a supernet."""

    name: str
    options: tuple[Value, ...]
    current: Current

    def taken(self) -> Sequence[tuple[Value, Tensor | None]]:
        mix = self.current.now()
        weights = mix.weights.get(self.name)
        return [(self.options[index], None if weights is None else weights[index]) for index in mix.active[self.name]]

    def drop_path(self) -> float:
        return self.current.now().drop_path

    def scalar(self) -> Tensor | None:
        mix = self.current.now()
        positions = mix.scalars.get(self.name)
        return mix.weights[self.name][list(positions)].sum() if positions else None


class Mixed(nn.Module):
    """The candidates of a group at one place. Answers the weighted sum of those that are run, None where none adds
    anything. A candidate may have `weighted(weight, *inputs)`, which is cheaper than multiplying what it answers, and
    `zeros(*inputs)`, which makes it one that answers None otherwise (none)."""

    def __init__(self, route: Open, candidates: Mapping[Value, Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.route = route
        self.candidates = nn.ModuleList(make() for make in candidates.values())
        self.positions = {option: position for position, option in enumerate(candidates)}

    def forward(self, *inputs: Any) -> Tensor | None:
        return blend(self.terms(*inputs))

    def terms(self, *inputs: Any) -> list[Term]:
        """What the answer is the sum of, for a place that adds several groups up (`features.blend`)."""
        taken = self.route.taken()
        terms = []
        for option, weight in taken:
            candidate = self.candidates[self.positions[option]]
            term = weigh(candidate, weight, *inputs)
            if term is not None:
                dropped = 0.0 if getattr(candidate, "skip", False) else self.route.drop_path()
                terms.append((term[0], drop_path(term[1], dropped)))
        scalar = self.route.scalar()
        if scalar is not None:
            if not terms:  # a number needs a map to be added to
                terms.append((None, self.candidates[self.positions[taken[0][0]]].zeros(*inputs)))
            terms.append((None, scalar))
        return terms


def weigh(module: nn.Module, weight: Tensor | None, *inputs: Any) -> Term | None:
    """What a candidate answers and the weight it has yet to be multiplied with; None where it adds nothing."""
    if weight is not None and hasattr(module, "weighted"):
        answer, weight = module.weighted(weight, *inputs), None
    else:
        answer = module(*inputs)
    return None if answer is None else (weight, answer)


@dataclass
class Mixing:
    """Makes every candidate of every group, mixed by `current`; `groups` lists what it has met."""

    style: Style = "search"
    auxiliary: bool = False
    current: Current = field(default_factory=Current)
    groups: dict[str, tuple[Value, ...]] = field(default_factory=dict)

    def route(self, name: str, options: Sequence[Value]) -> Open:
        known = self.groups.setdefault(name, tuple(options))
        if known != tuple(options):
            raise ValueError(f"group '{name}' has the candidates {known} at one place and {tuple(options)} at another")
        return Open(name, known, self.current)

    def module(self, name: str, candidates: Mapping[Value, Callable[[], nn.Module]]) -> nn.Module:
        return Mixed(self.route(name, tuple(candidates)), candidates)
