"""The two levels of a search: weights that fit one half of the data, architecture parameters that fit the other.

    min_a L_val(w*(a), a)   where   w*(a) = argmin_w L_train(w, a)

The functions know of no strategy and no supernet: parameters are tensors, losses are functions that read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.errors import UsageError

Loss = Callable[[], Tensor]

SHIFT = 0.01
"""Length of the shift of the weights whose finite difference is taken, as published."""


@dataclass(frozen=True, slots=True)
class Descent:
    """The step of the weights that second order looks ahead along: SGD with momentum and weight decay, not clipped, and
    without Nesterov's correction. `buffers`: one momentum buffer per weight; empty before the first step."""

    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Sequence[Tensor | None] = ()


def hypergradient(
    weights: Sequence[Tensor], alphas: Sequence[Tensor], train: Loss, valid: Loss, descent: Descent
) -> tuple[list[Tensor], Tensor]:
    """The gradient of `L_val(w'(a), a)` in the architecture parameters, one step ahead, and that loss.

    Liu et al., ICLR 2019, equations 7 and 8, with the momentum of the published code: `w' = w - xi (mu buffer +
    grad_w L_train(w, a) + decay w)`, and the gradient is `grad_a L_val(w', a) - xi H`, where `H` is the derivative of
    `grad_a L_train` along `v = grad_w' L_val(w', a)`, by a central difference at `w +- eps v`, `eps = 0.01 / |v|`.

    Both losses read `weights` and `alphas` and must be functions of them: `train`, which is called three times, draws
    the same dropout every time. Over rectifiers the difference also holds the jumps of the gradient between its sides,
    which the derivative at `w` does not. The weights come back bit for bit; no `grad` is set.
    """
    before = [weight.detach().clone() for weight in weights]
    buffers = descent.buffers or [None] * len(before)
    try:
        slopes = _gradients(train(), weights)
        with torch.no_grad():
            for weight, slope, buffer in zip(weights, slopes, buffers, strict=True):
                step = slope.add(weight, alpha=descent.weight_decay)
                if buffer is not None:
                    step.add_(buffer, alpha=descent.momentum)
                weight.sub_(step, alpha=descent.rate)
        loss = valid()
        both = _gradients(loss, [*alphas, *weights])
        direct, ahead = both[: len(alphas)], both[len(alphas) :]
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in ahead]))
        shift = SHIFT / length.clamp_min(torch.finfo(length.dtype).tiny)
        sides = []
        for signed in (shift, -shift):
            with torch.no_grad():
                for weight, old, part in zip(weights, before, ahead, strict=True):
                    weight.copy_(old + signed * part)
            sides.append(_gradients(train(), alphas))
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    implicit = [(plus - minus) / (2 * shift) for plus, minus in zip(*sides, strict=True)]
    return [near - descent.rate * far for near, far in zip(direct, implicit, strict=True)], loss.detach()


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Zero for what the loss does not depend on."""
    gradients = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    return [
        torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, gradients, strict=True)
    ]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """The module's buffers are afterwards what they were: running statistics and counters of normalisations."""
    buffers = list(module.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)


@contextmanager
def same_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Torch draws from `seed` inside, and goes on outside as if it had not: dropout is the same in every pass."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def pairs(first: Callable[[], Iterator[Batch]], second: Callable[[], Iterator[Batch]]) -> Iterator[tuple[Batch, Batch]]:
    """Batches of two parts, side by side; the part with fewer of them starts over until the other one has ended.

    Raises UsageError where a part has no batch.
    """
    makes = (first, second)
    iterators = [first(), second()]
    ended = [False, False]
    while True:
        batches = [next(iterator, None) for iterator in iterators]
        for position, batch in enumerate(batches):
            if batch is None:
                ended[position] = True
        if all(ended):
            return
        for position, batch in enumerate(batches):
            if batch is None:
                iterators[position] = makes[position]()
                batches[position] = next(iterators[position], None)
        one, other = batches
        if one is None or other is None:
            raise UsageError("half of the training data has no batch; take more data, or a smaller batch_size")
        yield one, other
