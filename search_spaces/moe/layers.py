"""Feed-forward layers, dense and of experts, and how wide they are for equal parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts.mixed import Mixed
from search_spaces.operators.experts.stacked import MULTIPLE, StackedLinear
from search_spaces.operators.operator import Operator
from search_spaces.operators.routers import facts_of
from search_spaces.operators.routers.facts import CONDITION

CLOSE = 0.01  # of a layer's parameters: as near to equal as an alignment of its hidden units has to come


def dense(features: int, hidden: int) -> nn.Sequential:
    """The usual feed-forward layer."""
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features))


@dataclass(frozen=True)
class Layout:
    """What an architecture says of its layers of experts. `factor`: hidden units of an expert per feature; None: those
    for as many active parameters as the dense layer has. `layers` stand one after the other in the place of one.
    `tasks`: how many there are, where routers go by them."""

    router: Operator
    expert: Operator
    experts: int
    chosen: int
    shared: int = 0
    layers: int = 1
    factor: float | None = None
    capacity: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = 0

    @property
    def active(self) -> int:
        """Experts whose parameters a token passes, without shared ones."""
        return facts_of(self.router).active(self.experts, self.chosen)

    def made(self, features: int, hidden: int) -> nn.Module:
        """The layer in the place of a dense one with `hidden` units, `[n, t, features]` to the same."""
        units = self.units(features, hidden)
        built = [self._one(features, units) for _ in range(self.layers)]
        return built[0] if len(built) == 1 else nn.Sequential(*built)

    def units(self, features: int, hidden: int) -> int:
        """Hidden units of an expert. For equal active parameters, router, shared experts and biases included, the
        multiple of 8, else of 4, 2 or 1, that comes near enough (`CLOSE`); rows of grouped products want to be aligned.
        Where none does, the nearest."""
        if self.factor is not None:
            return MULTIPLE * max(1, round(self.factor * features / MULTIPLE))
        wanted = _count(lambda: dense(features, hidden)) / self.layers

        def error(units: int) -> float:
            return abs(self.parameters(features, units, self.active) - wanted) / wanted

        few, many = (self.parameters(features, units, self.active) for units in (512, 1024))
        exact = 1024 - (many - wanted) * 512 / max(1, many - few)
        near = [step * max(1, round(exact / step)) for step in (MULTIPLE, 4, 2, 1)]
        return next((units for units in near if error(units) <= CLOSE), min(near, key=error))

    def parameters(self, features: int, units: int, experts: int) -> int:
        """Of one layer with its router, its shared experts and so many of the others, which cost the mean of all."""
        every = _count(lambda: self.expert.make(self.experts, features, units, features))
        shared = _count(lambda: self.expert.make(1, features, self.shared * units, features)) if self.shared else 0
        return _count(lambda: self._router(features)) + shared + experts * every // self.experts

    def total(self, features: int, hidden: int) -> int:
        """All parameters in the place of a dense layer."""
        return self.layers * self.parameters(features, self.units(features, hidden), self.experts)

    def _one(self, features: int, units: int) -> nn.Module:
        shared = self.expert.make(1, features, self.shared * units, features) if self.shared else None
        experts = self.expert.make(self.experts, features, units, features)
        return MixtureOfExperts(self._router(features), experts, shared, self.capacity)

    def _router(self, features: int) -> nn.Module:
        tasks = {"tasks": self.tasks} if CONDITION in facts_of(self.router).needs else {}
        return self.router.make(features, self.experts, self.chosen, **self.options, **tasks)


def hidden_units(layer: nn.Module) -> tuple[str, int | None]:
    """What of a feed-forward layer has hidden units, `expert` or `dense layer`, and how many: of mixed experts those of
    the first kind. None: none that is known, as of linear experts, or of ones of a user's that hold no
    `StackedLinear`."""
    mixture = next((module for module in layer.modules() if isinstance(module, MixtureOfExperts)), None)
    if mixture is None:
        first = next(module for module in layer.modules() if isinstance(module, nn.Linear))
        return "dense layer", first.out_features
    what, experts = "expert", mixture.experts
    if isinstance(experts, Mixed):
        kind, experts = next(iter(experts.kinds.items()))
        what = f"{kind} expert"
    stacked = [module for module in experts.modules() if isinstance(module, StackedLinear)]
    return what, int(stacked[0].weight.shape[1]) if len(stacked) > 1 else None  # a single one has the outputs


def dense_of_total(layout: Layout, features: int, hidden: int) -> nn.Sequential:
    """The dense layer with as many parameters as a layout has in all."""
    return dense(features, max(1, round((layout.total(features, hidden) - features) / (2 * features + 1))))


def _count(make: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())
