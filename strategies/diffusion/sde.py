"""Noise of continuous diffusion: forward processes, and the noise levels that a network learns from.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021: a process
dx = f(t) x dt + g(t) dw has Gaussian marginals x_t = alpha(t) x_0 + std(t) z. All of them are one process in another
scale: x_t / alpha(t) = x_0 + sigma z with the noise level sigma = std / alpha (Karras et al., NeurIPS 2022, eq. 8 and
appendix B). What is learned, and what guides, is therefore a function of x_0 + sigma z and sigma, whatever the
schedule; a schedule says which levels there are, which weight they have in training, and which way a sampler takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Levels = Callable[[int, torch.Generator], Tensor]
"""Draws noise levels sigma [n] as they are met in training."""


class Schedule(Protocol):
    """A forward process over times from `start`, above 0 where nothing can be learned at 0, to 1.

    Functions of times t of any shape are of that shape.
    """

    @property
    def start(self) -> float: ...

    @property
    def prior(self) -> float:
        """Standard deviation of the normal distribution that x_1 is taken to have."""
        ...

    def mean(self, t: Tensor) -> Tensor:
        """alpha(t), the coefficient of x_0."""
        ...

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t for a given x_0."""
        ...

    def drift(self, t: Tensor) -> Tensor:
        """f(t), the coefficient of x."""
        ...

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        ...

    def scale(self, sigma: Tensor) -> Tensor:
        """alpha where the noise level is sigma."""
        ...


@dataclass(frozen=True)
class VE:
    """The variance explodes: std = smin (smax / smin)^t; published for DiffusionNAG, with these values."""

    smin: float = 0.1
    smax: float = 5.0
    start: float = 1e-5

    @property
    def prior(self) -> float:
        return self.smax

    def mean(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return self.smin * (self.smax / self.smin) ** t

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.std(t) * math.sqrt(2 * math.log(self.smax / self.smin))

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


class _Preserving:
    """Variances sum up to 1: std^2 = 1 - alpha^2, f = -g^2 / 2."""

    prior = 1.0

    def drift(self, t: Tensor) -> Tensor:
        return -self.diffusion(t).square() / 2

    def diffusion(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma.square()).sqrt()


@dataclass(frozen=True)
class VP(_Preserving):
    """The variance is preserved: g^2 = beta(t), linear in t; the published option, with these values."""

    first: float = 0.1
    last: float = 5.0
    start: float = 1e-3

    def mean(self, t: Tensor) -> Tensor:
        return torch.exp(-self._spent(t) / 2)

    def std(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._spent(t))).sqrt()

    def diffusion(self, t: Tensor) -> Tensor:
        return (self.first + t * (self.last - self.first)).sqrt()

    def _spent(self, t: Tensor) -> Tensor:
        """The integral of beta up to t."""
        return self.first * t + (self.last - self.first) / 2 * t.square()


@dataclass(frozen=True)
class Cosine(_Preserving):
    """alpha = cos(angle), std = sin(angle), the angle linear in t; Nichol and Dhariwal, ICML 2021, eq. 17.

    Their offset 0.008 is the first angle in quarters of a turn; the last one is where the noise level is `most`, as
    at a whole quarter it has no bound.
    """

    offset: float = 0.008
    most: float = 10.0
    start: float = 0.0

    def mean(self, t: Tensor) -> Tensor:
        return self._angle(t).cos()

    def std(self, t: Tensor) -> Tensor:
        return self._angle(t).sin()

    def diffusion(self, t: Tensor) -> Tensor:
        first, last = self._ends
        return (2 * (last - first) * self._angle(t).tan()).sqrt()

    def _angle(self, t: Tensor) -> Tensor:
        first, last = self._ends
        return first + t * (last - first)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.offset / (1 + self.offset) * math.pi / 2, math.atan(self.most)


SCHEDULES: dict[str, Callable[[], Schedule]] = {"ve": VE, "vp": VP, "cosine": Cosine}


def level(schedule: Schedule, t: Tensor) -> Tensor:
    """The noise level sigma at times t."""
    return schedule.std(t) / schedule.mean(t)


@dataclass(frozen=True)
class UniformTime:
    """The levels at times that are uniform on those of a schedule, as published."""

    schedule: Schedule

    def __call__(self, count: int, random: torch.Generator) -> Tensor:
        t = self.schedule.start + (1 - self.schedule.start) * torch.rand(count, generator=random)
        return level(self.schedule, t)


@dataclass(frozen=True)
class LogNormal:
    """ln sigma is normal; Karras et al., NeurIPS 2022, table 1."""

    mean: float = -1.2
    deviation: float = 1.2

    def __call__(self, count: int, random: torch.Generator) -> Tensor:
        return (self.mean + self.deviation * torch.randn(count, generator=random)).exp()


@dataclass(frozen=True)
class Laplace:
    """The logarithm l of the signal-to-noise ratio, -2 ln sigma, has the density exp(-|l - mean| / width) / (2 width);
    Hang et al., "Improved Noise Schedule for Diffusion Training", 2024 (arXiv 2407.03297)."""

    mean: float = 0.0
    width: float = 0.5

    def __call__(self, count: int, random: torch.Generator) -> Tensor:
        drawn = torch.rand(count, generator=random) - 0.5
        ratio = self.mean - self.width * drawn.sign() * torch.log1p(-2 * drawn.abs().clamp(max=0.5 - 2**-25))
        return (-ratio / 2).exp()
