"""What the neural surrogates share: ensembles that train side by side, and their spread.

The members of an ensemble are one network whose weights have a first dimension more, so that a step trains all of
them. Each member leaves out a part of the observations; what it makes of those says how far predictions are off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.seeds import derive, generator
from predictors.targets import NormalScores, checked
from training.steps import Plan, Steps
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

LEAST_HELD_OUT = 10
"""Below this many observations every member learns from all of them: parts left out would be too much."""

PASSES = 40
"""Passes over the observations, at least."""

CHUNK = 1024
"""Architectures that are predicted at a time."""


class Parameters(nn.Module):
    """Weights of an ensemble, drawn from a generator of its own; `linear` uses and makes them in turn."""

    def __init__(self, members: int, seed: int) -> None:
        super().__init__()
        self.members = members
        self._random = torch.Generator().manual_seed(seed)

    def weight(self, inputs: int, outputs: int, gain: float = math.sqrt(2)) -> nn.Parameter:
        """[members, inputs, outputs], normal with the variance of He et al. 2015, eq. 10."""
        drawn = torch.randn(self.members, inputs, outputs, generator=self._random)
        return nn.Parameter(drawn * gain / math.sqrt(inputs))

    def bias(self, outputs: int) -> nn.Parameter:
        """[members, 1, outputs], zero."""
        return nn.Parameter(torch.zeros(self.members, 1, outputs))


def folds(archs: Sequence[Architecture], members: int, seed: int) -> Tensor:
    """[members, observations] float32: 1 where a member learns from an observation, 0 where it is left out.

    One member leaves out all observations of an architecture; none does where there are few.
    """
    turns = {arch: turn for turn, arch in enumerate(dict.fromkeys(archs))}
    if len(turns) < LEAST_HELD_OUT or members < 2:
        return torch.ones(members, len(archs))
    turn = generator(seed, "folds").permutation(len(turns)) % members
    left_out = turn[[turns[arch] for arch in archs]]
    return torch.from_numpy((left_out[None, :] != numpy.arange(members)[:, None]).astype(numpy.float32))


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Positions of `steps` batches: passes over the observations, each in an order of its own."""
    random = torch.Generator().manual_seed(derive(seed, "batches"))
    waiting = torch.empty(0, dtype=torch.long)
    size = min(size, count)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=random)])
        yield waiting[:size]
        waiting = waiting[size:]


def steps_for(count: int, least: int, size: int) -> int:
    """Training steps for so many observations: `least`, or `PASSES` over them if that is more."""
    return max(least, math.ceil(PASSES * count / size))


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    positions: Iterator[Tensor],
    steps: int,
    rate: float,
    decay: float,
) -> None:
    """AdamW on the loss of the observations at each of `steps` positions; the rate rises for a tenth of the steps."""
    plan = Plan(steps, rate, warm_up=0.1 * steps, decay=decay)
    Steps(network, lambda _: loss(next(positions)), plan).advance(steps)


@dataclass(frozen=True)
class Spread:
    """Standard deviations from the disagreement of members: `factor * sqrt(variance + floor)`."""

    factor: float
    floor: float

    @classmethod
    def of(cls, outputs: Floats, targets: Floats, learned: Floats) -> Spread:
        """From the members' outputs [members, n] for the observations and the members that left each out.

        The factor makes 68.3% of what was left out fall within one standard deviation.
        """
        variance = outputs.var(axis=0)
        if learned.all():
            return cls(1.0, max(float(((outputs - targets) ** 2).mean()), 1.0 / len(targets)))
        floor = float(variance.mean()) + 1e-6
        left = learned == 0
        off = (numpy.abs(outputs - targets) / numpy.sqrt(variance + floor))[left]
        return cls(float(numpy.quantile(off, 0.683)), floor)

    def __call__(self, outputs: Floats) -> Floats:
        return numpy.asarray(self.factor * numpy.sqrt(outputs.var(axis=0) + self.floor))


Outputs = Callable[[Sequence[Architecture]], Tensor]
"""Normal scores [members, architectures] of some architectures, without gradients."""

Learn = Callable[[Sequence[Architecture], Tensor, Tensor], Outputs]
"""Trains an ensemble: architectures, their normal scores [n] float32, and what each member learns from [members, n]."""


@dataclass(frozen=True)
class Fitted:
    """A trained ensemble with the scales of its predictions; constant values need no ensemble."""

    outputs: Outputs | None
    scores: NormalScores
    spread: Spread

    @classmethod
    def to(
        cls,
        archs: Sequence[Architecture],
        values: Sequence[float],
        members: int,
        seed: int,
        learn: Learn,
        share: float = 0.0,
    ) -> Fitted:
        """`share` is that of `NormalScores.of`. Raises UsageError as `Surrogate.fit` does."""
        ordered, numbers = checked(archs, values)
        scores, targets = NormalScores.of(numbers, share)
        if scores.constant:
            return cls(None, scores, Spread(0.0, 0.0))
        learned = folds(ordered, members, seed)
        with thread_count(1):
            outputs = learn(ordered, torch.from_numpy(targets).float(), learned)
            fitted = outputs(ordered).double().numpy()
        return cls(outputs, scores, Spread.of(fitted, targets, learned.numpy()))

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean and standard deviation [n] in the units of the values."""
        if self.outputs is None or not archs:
            return numpy.full(len(archs), self.scores.values[0]), numpy.zeros(len(archs))
        with thread_count(1):
            parts = [self.outputs(archs[start : start + CHUNK]) for start in range(0, len(archs), CHUNK)]
        found = torch.cat(parts, 1).double().numpy()
        mean, deviation = found.mean(axis=0), self.spread(found)
        return self.scores.back(mean), self.scores.spread(mean, deviation)
