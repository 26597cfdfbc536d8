"""The reverse process of masked diffusion: undecided slots are decided, each from its distribution given the others.

`ordered` decides one slot per step, in an order of its own for each sequence: as many calls of the denoiser as there
are slots, and no error of discretisation (any-order sampling; Ou et al., ICLR 2025, section 3.3). `tau_leaping` is the
usual discretisation in time, to compare with: it has a cache, because without a time input the network has nothing new
to say of a sequence that has not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy

from strategies.diffusion.config import CLASSES
from strategies.diffusion.slots import Slots

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from strategies.diffusion.slots import Masks, Tokens

    Floats = NDArray[numpy.float64]
    Weigh = Callable[[Tokens], Floats]
    """Log-weights [m] of sequences [m, L] with MASK."""

BEST = CLASSES
"""The condition that asks for the best."""

SAME = 0.01
"""Where a conditional distribution is so close to the unconditional one (Kullback-Leibler), a sequence no longer needs
both: Castillo et al., "Adaptive Guidance: Training-free Acceleration of Conditional Diffusion Models", AAAI 2025."""


class Conditionals(Protocol):
    """What the sampler asks of a denoiser."""

    def log_probabilities(self, tokens: Tokens, slots: Tokens, condition: Tokens | None = None) -> Floats:
        """[n, W] of slot `slots[i]` of each sequence [n, L]."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Sequences [n, L], how often the denoiser was called, and the sequences that were spared an unconditional call."""

    tokens: Tokens
    calls: int
    skipped: int = 0


def ordered(
    slots: Slots,
    count: int,
    rng: Generator,
    *,
    denoiser: Conditionals | None = None,
    condition: int | None = None,
    scale: Floats | float = 0.0,
    guides: Sequence[tuple[Weigh, Floats | float]] = (),
    temperature: float = 1.0,
    skip: float = SAME,
) -> Drawn:
    """`count` sequences, each decided slot by slot, among what is allowed.

    An option a of slot i has the log-weight (log c(a | x) + sum_g gamma_g (g(x, i := a) - mean_a g)) / temperature:
    with g = log p(y | x) that is Bayes' rule, without an approximation by gradients. `denoiser` gives c, None: uniform
    over what is allowed. `guides` are the g with their gamma, one number or [count]. With a `condition` c is
    u + (1 + scale) (c - u) in logits, u without it (classifier-free guidance, Ho and Salimans, 2022); where both are
    the same but for `skip` the sequence does without u from then on; 0 never does.
    """
    walk = slots.walk(count, rng)
    calls = skipped = 0
    scales = numpy.broadcast_to(numpy.asarray(scale, dtype=float), (count,))
    both = scales != 0 if denoiser is not None and condition is not None else numpy.zeros(count, dtype=bool)
    for step in range(slots.count):
        here, allowed = walk.orders[:, step], walk.allowed(step)
        weights = numpy.where(allowed, 0.0, -numpy.inf)
        if denoiser is not None:
            asked = None if condition is None else numpy.full(count, condition, dtype=numpy.int64)
            found = denoiser.log_probabilities(walk.tokens, here, asked)
            calls += 1
            rows = numpy.flatnonzero(both)
            skipped += int((scales != 0).sum()) - len(rows) if condition is not None else 0
            if len(rows):
                plain = denoiser.log_probabilities(walk.tokens[rows], here[rows])
                calls += 1
                both[rows] = _divergence(found[rows], plain) >= skip if skip else True
                found[rows] = _free(found[rows], plain, scales[rows, None])
            weights = _normal(numpy.where(allowed, found, -numpy.inf)) / temperature
        for weigh, gamma in guides:
            strength = numpy.broadcast_to(numpy.asarray(gamma, dtype=float), (count,))[:, None]
            weights = weights + strength / temperature * _centred(weigh, walk.tokens, here, allowed)
        walk.decide(step, numpy.argmax(weights + rng.gumbel(size=weights.shape), axis=1))
    return Drawn(walk.tokens, calls, skipped)


def tau_leaping(slots: Slots, count: int, rng: Generator, denoiser: Conditionals, steps: int) -> Drawn:
    """`count` sequences in `steps` equal steps of time from 1 to 0, where slots are free of one another.

    From time t to s every undecided slot is decided with probability (t - s) / t, and all of a step from the same
    distributions; a sequence's are computed anew only after it has changed. `calls` is the number of those computations
    per sequence, at most.
    """
    tokens = numpy.full((count, slots.count), slots.mask, dtype=numpy.int64)
    computed = numpy.zeros(count, dtype=numpy.int64)
    known = numpy.zeros((count, slots.count, slots.width))
    changed = numpy.ones(count, dtype=bool)
    for step in range(steps, 0, -1):
        leap = (rng.random(tokens.shape) < 1 / step) & (tokens == slots.mask)
        rows = numpy.flatnonzero(changed & leap.any(axis=1))
        for slot in range(slots.count) if len(rows) else ():
            known[rows, slot] = denoiser.log_probabilities(tokens[rows], numpy.full(len(rows), slot))
        computed[rows] += 1
        changed[rows] = False
        drawn = numpy.argmax(numpy.where(slots.support, known, -numpy.inf) + rng.gumbel(size=known.shape), axis=2)
        tokens = numpy.where(leap, drawn, tokens)
        changed |= leap.any(axis=1)
    return Drawn(tokens, int(computed.max(initial=0)))


def _centred(weigh: Weigh, tokens: Tokens, here: Tokens, allowed: Masks) -> Floats:
    """What a guide makes of every allowed completion [n, W], less its mean over them."""
    rows, options = numpy.nonzero(allowed)
    completed = tokens[rows]
    completed[numpy.arange(len(rows)), here[rows]] = options
    found = numpy.zeros(allowed.shape)
    found[rows, options] = weigh(completed)
    return found - found.sum(axis=1, keepdims=True) / allowed.sum(axis=1, keepdims=True)


def _free(conditional: Floats, plain: Floats, scale: Floats) -> Floats:
    """u + (1 + s) (c - u); minus infinity where either is."""
    finite = numpy.isfinite(conditional) & numpy.isfinite(plain)
    safe = numpy.where(finite, plain, 0.0)
    return numpy.where(finite, safe + (1 + scale) * (numpy.where(finite, conditional, 0.0) - safe), -numpy.inf)


def _divergence(one: Floats, other: Floats) -> Floats:
    """Kullback-Leibler divergence [n] of log-probabilities [n, W]."""
    finite = numpy.isfinite(one)
    difference = numpy.where(finite, one, 0.0) - numpy.where(finite, other, 0.0)
    return numpy.asarray((numpy.where(finite, numpy.exp(one), 0.0) * difference).sum(axis=1))


def _normal(weights: Floats) -> Floats:
    """Log-weights [n, W] with the sum of their exponentials at one."""
    top = weights.max(axis=1, keepdims=True)
    return weights - top - numpy.log(numpy.exp(weights - top).sum(axis=1, keepdims=True))
