"""Kolmogorov-Arnold layers with cubic B-splines (Liu et al., "KAN: Kolmogorov-Arnold Networks", ICLR 2025, arXiv
2404.19756, section 2.2), as matrix products: the bases of all inputs are the inputs of one linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Assignment
from search_spaces.operators.experts.stacked import StackedLinear, units

ORDER = 3


class Splines(nn.Module):
    """The cubic B-spline bases of each input, `[..., inputs]` to `[..., inputs * bases]`, by the recursion of Cox and
    de Boor, on `intervals` equal parts of [-1, 1]: `intervals + 3` bases, whose sum is 1 there."""

    knots: Tensor

    def __init__(self, intervals: int) -> None:
        super().__init__()
        step = 2 / intervals
        self.register_buffer("knots", torch.arange(-ORDER, intervals + ORDER + 1) * step - 1, persistent=False)

    @property
    def bases(self) -> int:
        return len(self.knots) - ORDER - 1

    def forward(self, x: Tensor) -> Tensor:
        knots, x = self.knots.to(x.dtype), x.unsqueeze(-1)
        values = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
        for order in range(1, ORDER + 1):
            rising = (x - knots[: -order - 1]) / (knots[order:-1] - knots[: -order - 1])
            falling = (knots[order + 1 :] - x) / (knots[order + 1 :] - knots[1:-order])
            values = rising * values[..., :-1] + falling * values[..., 1:]
        return values.flatten(-2)


class KanLayer(nn.Module):
    """`W silu(x) + sum of splines of tanh(x)`, `[..., inputs]` to `[..., outputs]`. tanh keeps all inputs on the grid,
    outside of which splines are 0; the splines start near 0, at a deviation of 0.1 / intervals."""

    def __init__(self, experts: int, inputs: int, outputs: int, intervals: int) -> None:
        super().__init__()
        self.splines = Splines(intervals)
        self.base = StackedLinear(experts, inputs, outputs, bias=False)
        self.spline = StackedLinear(experts, inputs * self.splines.bases, outputs, bias=False)
        nn.init.normal_(self.spline.weight, std=0.1 / intervals)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        bent: Tensor = self.spline(self.splines(x.tanh()), assignment)
        return bent + self.base(functional.silu(x), assignment)


class Kan(nn.Module):
    """Two such layers, of so many hidden units that there are as many parameters as in an MLP."""

    def __init__(self, experts: int, features: int, hidden: int, outputs: int, intervals: int = 5) -> None:
        super().__init__()
        own = units(hidden, 1 / (intervals + ORDER + 1))
        self.first = KanLayer(experts, features, own, intervals)
        self.second = KanLayer(experts, own, outputs, intervals)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        answer: Tensor = self.second(self.first(x, assignment), assignment)
        return answer
