"""Samplers of continuous diffusion: from noise to matrices, by a score and a guidance.

Both take any `score(x, sigma)`, the gradient of the log-density of x_0 + sigma z at matrices x [n, N, V] with noise
levels sigma [n], and any `guidance(x, sigma)` that is added to it (An et al., ICLR 2024, section 3.2: the gradient of
a predictor times its weight), and return what x_0 is expected to be at the last noise level [n, N, V].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from strategies.diffusion.sde import VE, Schedule, level

Field = Callable[[Tensor, Tensor], Tensor]
"""From matrices [n, N, V] and noise levels [n] to a gradient [n, N, V]."""

PUBLISHED = VE()


@torch.no_grad()
def predictor_corrector(
    score: Field,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    schedule: Schedule = PUBLISHED,
    steps: int = 1000,
    snr: float = 0.16,
    guidance: Field | None = None,
) -> Tensor:
    """Reverse-time stochastic differential equation; Song et al., ICLR 2021, appendix G, as in DiffusionNAG.

    At each of `steps` evenly spaced times one step of Langevin dynamics with signal-to-noise ratio `snr`, then one
    Euler-Maruyama step; the last step adds no noise. Twice as many calls as steps.
    """
    total = _total(score, guidance)
    times = torch.linspace(1, schedule.start, steps)
    alphas, sigmas = schedule.mean(times), level(schedule, times)
    drifts, diffusions = schedule.drift(times), schedule.diffusion(times)
    length = (1 - schedule.start) / steps
    x = mean = torch.randn(shape, generator=generator) * schedule.prior
    for alpha, sigma, drift, diffusion in zip(alphas, sigmas, drifts, diffusions, strict=True):
        sigma = sigma.expand(shape[0])
        gradient = total(x / alpha, sigma) / alpha  # of x, which is alpha times what the score reads
        noise = torch.randn(shape, generator=generator)
        # Song's alpha_t, 1 for VE: how much variance a discrete step would leave
        size = 2 * (snr * _norm(noise) / _norm(gradient)).square() * (1 + 2 * drift * length)
        x = x + size * gradient + (2 * size).sqrt() * noise
        gradient = total(x / alpha, sigma) / alpha
        mean = x - (drift * x - diffusion.square() * gradient) * length
        x = mean + diffusion * length**0.5 * torch.randn(shape, generator=generator)
    return mean / alphas[-1]


@torch.no_grad()
def heun(
    score: Field,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    steps: int = 18,
    rho: float = 7.0,
    guidance: Field | None = None,
    schedule: Schedule = PUBLISHED,
) -> Tensor:
    """Probability flow by Heun's second-order steps; Karras et al., NeurIPS 2022, algorithm 1 and eq. 5.

    Noise levels fall from the highest of the schedule to its lowest as powers of `rho`, then to 0 by an Euler step;
    2 * steps - 1 calls.
    """
    total = _total(score, guidance)
    lowest, highest = level(schedule, torch.tensor([schedule.start, 1.0])).tolist()
    places = torch.linspace(0, 1, steps)
    falling = (highest ** (1 / rho) + places * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho
    sigmas = [*falling.tolist(), 0.0]
    x = torch.randn(shape, generator=generator) * (schedule.prior / float(schedule.mean(torch.ones(()))))
    for now, then in pairwise(sigmas):
        slope = -now * total(x, torch.full(shape[:1], now))
        ahead = x + (then - now) * slope
        if then > 0:
            slope = (slope - then * total(ahead, torch.full(shape[:1], then))) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


def _total(score: Field, guidance: Field | None) -> Field:
    if guidance is None:
        return score
    return lambda x, sigma: score(x, sigma) + guidance(x, sigma)


def _norm(rows: Tensor) -> Tensor:
    """The mean length of the matrices [n, N, V], as in the published code one number for all."""
    return rows.flatten(1).norm(dim=1).mean()
