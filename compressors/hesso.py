"""HESSO: train once, and shrink what is redundant to exactly 0 on the way.

"HESSO: Towards Automatic Efficient and User Friendly Any Neural Network Training and Pruning" (arXiv 2409.09085, 2024),
of the series "Only Train Once" (Chen et al., NeurIPS 2021). A unit's variables x are what it produces, d the direction
in which the optimiser moves them: the momentum of SGD, weight decay included, m / (sqrt(v) + 1e-8), corrected, of Adam.
Five criteria, each divided by its norm over all units of the network and weighted, make the saliency of a unit:
|x|, |x| / scalars, cos(x, d) + 1, |<x, d>|, <x, d>^2 / 2. With optimiser steps n from 1, T steps before it begins, P
periods of D steps each and K units that are to go, the K / P units of least saliency that are not pruned yet become
redundant at (n - T - 1) mod D = 0; after every step x of a redundant unit is multiplied by (D - t - 1) / (D - t),
t = (n - T) mod D, so that it is exactly 0 at t = D - 1; from there on it is set to 0 after every step. The last period
takes the rest of K.

Deviations. Saliency is of the variables after the step whose direction is d, not before it. The momentum of pruned
units is set to 0 with them. Pruned units are left out of the ranking, where the reference code takes them out of it by
their numbers. Each group keeps at least what its kind demands; what is kept of a width is rounded down to a multiple
(`--round-to`), as by all methods here; the reference code rounds up. Where costs are the target, K is how many must go
by the present ranking: every period finds it anew, so that the last one meets the target. SGD without momentum moves
along the gradient; of Nesterov's d is the momentum alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from compressors.zeroing import Goal, Zeroing
from compressors.zeroing import Settings as Zeroed
from nas_core.config import Config as BaseConfig
from training.regimes.regime import Regime

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from compressors.groups.groups import Groups
    from compressors.units import Units
    from nas_core.batch import Batch
    from training.compute import Forward


class Criteria(BaseConfig):
    """Weights of the criteria of a unit's saliency."""

    magnitude: float = Field(default=0.2, ge=0, description="of |x|")
    avg_magnitude: float = Field(default=0.2, ge=0, description="of |x| by the number of scalars")
    cosine_similarity: float = Field(default=0.2, ge=0, description="of cos(x, d) + 1")
    taylor_first_order: float = Field(default=0.2, ge=0, description="of |<x, d>|")
    taylor_second_order: float = Field(default=0.2, ge=0, description="of <x, d>^2 / 2")


class Scoring(Zeroed):
    """What methods of this family share."""

    criteria: Criteria = Field(default=Criteria(), description="weights of the criteria")
    cosine: Literal["important", "redundant"] = Field(
        default="important", description="what a unit is that descent shrinks by itself (the reference: important)"
    )
    start: float = Field(default=0.1, ge=0, lt=1, description="share of the steps before anything happens")
    prune: float = Field(default=0.15, gt=0, le=1, description="share of the steps in which units shrink")


class Settings(Scoring):
    """HESSO: what is redundant shrinks to 0 while the network trains."""

    periods: int = Field(default=10, ge=1, description="in which units are chosen one after another")


class Sums(NamedTuple):
    """Per unit, float64: |x|^2, |d|^2, <x, d>, and how many scalars x has."""

    xx: Tensor
    dd: Tensor
    xd: Tensor
    scalars: Tensor


def saliency(sums: Sums, settings: Scoring) -> dict[str, Tensor]:
    """Per criterion its weighted values [units]: each has the norm of its weight. Their sum is the saliency."""
    x, d = sums.xx.sqrt(), sums.dd.sqrt()
    cosine = sums.xd / (x * d).clamp_min(1e-300)
    raw = {
        "magnitude": x,
        "avg_magnitude": x / sums.scalars,
        "cosine_similarity": (cosine if settings.cosine == "important" else -cosine) + 1,
        "taylor_first_order": sums.xd.abs(),
        "taylor_second_order": sums.xd.square() / 2,
    }
    return {name: getattr(settings.criteria, name) * one / one.norm().clamp_min(1e-300) for name, one in raw.items()}


class Directions:
    """In which direction an optimiser has moved a parameter in its last step, and what it remembers of it."""

    def __init__(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        self._optimizer = optimizer
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        self._groups = {name: groups[id(one)] for name, one in tensors.items() if id(one) in groups}

    def __call__(self, name: str, parameter: Tensor) -> Tensor | None:
        """None for what is no parameter, or has not been moved."""
        group = self._groups.get(name)
        if group is None or parameter.grad is None:
            return None
        state = self._optimizer.state[parameter]
        if "exp_avg" in state:
            step, (first, second) = float(state["step"]), group["betas"]
            deviation = (state["exp_avg_sq"] / (1 - second**step)).sqrt() + 1e-8
            moved: Tensor = state["exp_avg"] / (1 - first**step) / deviation
            return moved
        momentum: Tensor | None = state.get("momentum_buffer")
        if momentum is None:
            return parameter.grad + group["weight_decay"] * parameter.detach()
        return momentum

    def momenta(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """What the optimiser remembers, by kind and by the name of the parameter."""
        kinds = ("momentum_buffer", "exp_avg", "exp_avg_sq")
        states = {name: self._optimizer.state[tensors[name]] for name in self._groups}
        return [{name: state[kind] for name, state in states.items() if state.get(kind) is not None} for kind in kinds]


def sums(units: Units, directions: Directions) -> Sums:
    """Of all units at present."""

    def product(name: str, parameter: Tensor) -> Tensor | None:
        moved = directions(name, parameter)
        return None if moved is None else moved * parameter.detach()

    def squared(name: str, parameter: Tensor) -> Tensor | None:
        moved = directions(name, parameter)
        return None if moved is None else moved.square()

    lengths = units.sums(lambda _, tensor: tensor.detach().square())
    return Sums(lengths, units.sums(squared), units.sums(product), units.scalars)


class Schedule(NamedTuple):
    """`start` steps T, then `periods` P of `length` D steps."""

    start: int
    periods: int
    length: int

    @classmethod
    def of(cls, settings: Settings, steps: int) -> Schedule:
        """Of a training of `steps`; periods have at least one step each, so that short trainings have fewer."""
        start, prune = min(int(settings.start * steps), steps - 1), max(int(settings.prune * steps), 1)
        prune = min(prune, steps - start)
        periods = min(settings.periods, prune)
        return cls(start, periods, prune // periods)

    def period(self, n: int) -> int | None:
        """The number, from 0, of the period that begins with step n (from 1); None where none begins."""
        number, within = divmod(n - self.start - 1, self.length)
        return number if within == 0 and 0 <= number < self.periods else None

    def factor(self, n: int) -> tuple[float, bool]:
        """What redundant units are multiplied by after step n, and whether they are pruned then."""
        t = (n - self.start) % self.length
        return (self.length - t - 1) / (self.length - t), t == self.length - 1


class Shrinking(Regime):
    """Units that are redundant, and shrink, and those that are pruned, and stay 0."""

    last = True

    def __init__(self, goal: Goal, settings: Scoring) -> None:
        self._goal, self._scoring = goal, settings

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        from compressors.units import Units

        self.units = Units(self._goal.choice.groups, network)
        self.redundant, self.pruned = self.units.none(), self.units.none()

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        self.directions = Directions(optimizer, self.units.tensors)

    def before_step(self, step: int, steps: int) -> None:
        self._n, self._steps = step + 1, steps

    def saliency(self) -> Tensor:
        """Of all units [units], of the weights as they are."""
        import torch

        return torch.stack(list(saliency(sums(self.units, self.directions), self._scoring).values())).sum(0)

    def shrink(self, factor: float, over: bool) -> None:
        """Redundant units by a factor, pruned ones to 0; `over`: those that are redundant are pruned now."""
        import torch

        factors = torch.ones(self.units.count)
        factors[self.redundant], factors[self.pruned] = factor, 0.0
        self.units.scale(factors)
        if over and self.redundant.any():
            self.pruned, self.redundant = self.pruned | self.redundant, self.units.none()
            for momenta in self.directions.momenta(self.units.tensors):
                self.units.scale((~self.pruned).float(), momenta)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"redundant": self.redundant, "pruned": self.pruned}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.redundant, self.pruned = tensors["redundant"], tensors["pruned"]


class Hybrid(Shrinking):
    """The schedule of HESSO."""

    def __init__(self, goal: Goal, settings: Settings) -> None:
        super().__init__(goal, settings)
        self._settings = settings

    def after_step(self) -> None:
        schedule = Schedule.of(self._settings, self._steps)
        number = schedule.period(self._n)
        if number is not None:
            self.redundant = self._chosen(number, schedule.periods)
        if self.redundant.any() or self.pruned.any():
            self.shrink(*schedule.factor(self._n))

    def _chosen(self, number: int, periods: int) -> Tensor:
        """The units that become redundant with period `number` of `periods`."""
        scores = self.saliency()
        going = self._goal.redundant(scores, self.pruned)
        left = going & ~self.pruned
        share = int(going.sum()) // periods if number < periods - 1 else int(left.sum())
        scores[~left] = float("inf")
        chosen = self.units.none()
        chosen[scores.argsort(stable=True)[: min(share, int(left.sum()))]] = True
        return chosen


class Hesso(Zeroing):
    """Shrink what is redundant to 0 while the network trains, then remove it."""

    Config: ClassVar[type[BaseConfig]] = Settings

    def acting(self, network: nn.Module, groups: Groups, goal: Goal) -> Regime:
        return Hybrid(goal, self.config)
