"""The learning-rate range test (Smith, WACV 2017, section 3.3): train a little at ever higher rates, and look.

The loss is smoothed by a bias-corrected exponential moving average, the test stops where that is more than four times
its lowest value, and the top of a cycle is suggested at a third of the rate at which it was lowest.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.seeds import derive
from training.fit import Training, seed_torch, trial_failures

LOWEST, HIGHEST = 1e-5, 10.0
FEWEST_STEPS = 300  # the moving average lags by 50: with 100 steps the suggestion was often three times too high
SMOOTHING = 0.98
BLOW_UP = 4.0
FALL = 0.02  # of the loss, below which a minimum is taken for the noise of a network that does not learn

Listener = Callable[[int, int, float, float], None]


@dataclass(frozen=True)
class RangeTest:
    """One row per optimiser step: its learning rate, the loss before it, and the smoothed loss.

    `blew_up`: whether the loss ended the test; otherwise it went through all rates.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    blew_up: bool

    @property
    def lr_max(self) -> float:
        """Suggested top of a cycle, or highest rate of a schedule: a third of the rate of the lowest smoothed loss."""
        return self.rates[self._lowest] / 3

    @property
    def lr_base(self) -> float:
        """Suggested bottom of a cycle."""
        return self.lr_max / 4

    @cached_property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest per factor of the rate, up to its lowest value."""
        # Slopes over a tenth of the test: those of single steps are the noise of single batches.
        reach = max(len(self.rates) // 20, 1)
        inner = range(reach, max(self._lowest - reach, reach) + 1)
        return self.rates[min(inner, key=lambda i: self._slope(i - reach, i + reach))]

    @property
    def divergence(self) -> float | None:
        """The rate from which the loss rose until it blew up: that of the lowest loss; None where it did not.

        For gradient descent on a quadratic of curvature c it is 2 / c, up to one step; noise makes it vague.
        """
        return self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)] if self.blew_up else None

    @property
    def falls_to_the_end(self) -> bool:
        """Whether the smoothed loss was lowest at the highest rate, so that the range was too low."""
        return self._lowest == len(self.rates) - 1

    @property
    def _lowest(self) -> int:
        return min(range(len(self.smoothed)), key=self.smoothed.__getitem__)

    def _slope(self, first: int, last: int) -> float:
        last = min(last, len(self.rates) - 1)
        return (self.smoothed[last] - self.smoothed[first]) / math.log(self.rates[last] / self.rates[first])


def range_test(
    training: Training,
    *,
    low: float = LOWEST,
    high: float = HIGHEST,
    steps: int | None = None,
    linear: bool = False,
    listen: Listener = lambda step, steps, rate, loss: None,
) -> RangeTest:
    """Train at rates from `low` to `high`, one optimiser step each, growing exponentially or, if so wished, linearly.

    `steps` is one epoch by default, and at least 300. `listen` is called after each with (steps done, all steps, rate,
    smoothed loss). The model, the optimiser and torch's generators are afterwards, bit for bit, what they were before.

    Raises UsageError for a range that is none, and TrialError where the network fails or does not learn at any rate.
    """
    steps = max(FEWEST_STEPS, training.steps_per_epoch) if steps is None else steps
    planned = _ramp(low, high, steps, linear)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, blew_up = 0.0, False
    with _left_as_it_was(training), trial_failures():
        seed_torch(derive(training.seed, "range test"), training.device)
        training.model.train()
        for rate, batch in zip(planned, _endless(training), strict=False):
            training.set_rate(rate)
            loss = float(training.update(batch)) / batch.samples
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            value = average / (1 - SMOOTHING ** (len(losses) + 1))
            if not math.isfinite(value):
                blew_up = True
                break
            rates.append(rate)
            losses.append(loss)
            smoothed.append(value)
            listen(len(rates), steps, rate, value)
            if value > BLOW_UP * min(smoothed):
                blew_up = True
                break
    beginning = losses[: steps // 10]
    rose = not beginning or min(smoothed) == smoothed[0]
    if rose or min(smoothed) > (1 - FALL) * statistics.fmean(beginning):
        reached = f" to {rates[-1]:g}" if rates else ""
        raise TrialError("no-descent", f"the loss does not fall at learning rates from {low:g}{reached}")
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed), blew_up)


def _ramp(low: float, high: float, steps: int, linear: bool) -> list[float]:
    if not 0 < low < high:
        raise UsageError(f"learning rates from {low:g} to {high:g} are no range; the first must be the lower, above 0")
    if steps < 10:
        raise UsageError(f"{steps} steps are too few for a range test; take 10 or more, {FEWEST_STEPS} is usual")
    parts = [step / (steps - 1) for step in range(steps)]
    return [low + (high - low) * part if linear else low * (high / low) ** part for part in parts]


def _endless(training: Training) -> Iterator[Batch]:
    """The training batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from training.batches(epoch)


@contextmanager
def _left_as_it_was(training: Training) -> Iterator[None]:
    """Whatever happens to the training in between is undone, bit for bit."""
    model, optimizer = training.model, training.optimizer
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(training)}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    state, micro_batch = copy.deepcopy(optimizer.state_dict()), training.micro_batch
    try:
        with torch.random.fork_rng(devices=[training.device] if training.device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for name, tensor in _tensors(training):
                tensor.copy_(tensors[name])
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        optimizer.load_state_dict(state)
        training.micro_batch = micro_batch


def _tensors(training: Training) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers, also those that a state dict leaves out."""
    yield from training.model.named_parameters()
    yield from training.model.named_buffers()
    if training.averaged is not None:
        for name, tensor in training.averaged.state_dict().items():
            yield f"averaged/{name}", tensor
