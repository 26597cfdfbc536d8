"""Moments of the batch: those of the batch itself in training mode, their moving averages in evaluation mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, SQUARE, VARIANCE = "mean", "square", "variance"
START = {MEAN: 0.0, SQUARE: 1.0, VARIANCE: 1.0}


class BatchMoment(nn.Module):
    """The mean, the mean square or the variance per channel: of the batch while training, later its moving average.

    `(value, x)` to `[1, g, k, 1]`, where x is `[n, g, k, p]` and value is of a shape that spreads to that. As in
    `nn.BatchNorm2d`, variances are biased, those that are averaged unbiased, and the average moves by `momentum`, or is
    cumulative where that is None.

    Raises ValueError in training mode for one value per channel, as `nn.BatchNorm2d` does.
    """

    running: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, moment: str, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.moment, self.momentum = moment, momentum
        self.register_buffer("running", torch.full((channels,), START[moment]))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def extra_repr(self) -> str:
        return f"{len(self.running)}, {self.moment}, momentum={self.momentum}"

    def reset_running_stats(self) -> None:
        """The average as it was made."""
        self.running.fill_(START[self.moment])
        self.num_batches_tracked.zero_()

    def forward(self, value: Tensor, x: Tensor) -> Tensor:
        n, groups, size, positions = x.shape
        if not self.training:
            return self.running.to(x.dtype).reshape(1, groups, size, 1)
        count = n * positions
        if count < 2:
            raise ValueError(f"one value per channel, of {list(x.shape)}, has no statistics: use larger batches")
        found = self.of(value, (0, 3))
        with torch.no_grad():
            unbiased = count / (count - 1) if self.moment == "variance" else 1.0
            seen = (found.detach() * unbiased).expand(1, groups, size, 1).reshape(-1).to(self.running.dtype)
            self.num_batches_tracked += 1
            share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running += (seen - self.running) * share
        return found

    def of(self, value: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The moment over these axes, which are kept."""
        if self.moment == "square":
            return mean(value * value, axes)
        return mean(value, axes) if self.moment == "mean" else variance(value, axes)


def mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Over axes, which are kept; one by one, the last first: several together are slow where channels lie last."""
    for axis in reversed(axes):
        x = x.mean(axis, keepdim=True)
    return x


def variance(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Biased, over axes, which are kept. On CPUs `Tensor.var` takes the numbers one by one, at five times the time."""
    return mean((x - mean(x, axes)).square(), axes)
