"""Pade neurons (Keles and Tekalp, "PAON: A New Neuron Model using Pade Approximants", 2024, arXiv 2403.11791)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError
from search_spaces.layers.assigned import Assignment
from search_spaces.operators.experts.stacked import StackedLinear, units


class Pade(nn.Module):
    """A layer of Pade neurons of degrees `[numerator / denominator]`, then a linear map.

    A neuron is P_K(x) / Q_L(x) with P_K = a_0 + sum of a_k x^k, Q_L = 1 + sum of b_k x^k, powers of each element and
    a_k, b_k matrices. `smooth`: (Q_L P_K + Q_{L-1} P_{K-1}) / (Q_L^2 + Q_{L-1}^2), which has no pole where Q_L and
    Q_{L-1} have no common zero (with L = 1: none at all). The denominators start at 1 (b = 0): without `smooth` and
    with a numerator of degree 1 the layer is a linear one then. Raises UsageError for degrees below 1.
    """

    def __init__(
        self,
        experts: int,
        features: int,
        hidden: int,
        outputs: int,
        numerator: int = 2,
        denominator: int = 1,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        if min(numerator, denominator) < 1:
            raise UsageError(f"pade: degrees {numerator}/{denominator}; both must be 1 or more")
        self.smooth = smooth
        own = units(hidden, (features + outputs) / (features * (numerator + denominator) + outputs))
        self.above = nn.ModuleList(StackedLinear(experts, features, own, bias=not k) for k in range(numerator))
        self.below = nn.ModuleList(StackedLinear(experts, features, own, bias=False) for _ in range(denominator))
        self.down = StackedLinear(experts, own, outputs)
        for layer in self.below:
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        upper, lower = self._terms(self.above, x, assignment), self._terms(self.below, x, assignment)
        above, below = _sum(upper), 1 + _sum(lower)
        if not self.smooth:
            ratio = above / below
        else:
            # Without their highest power; P_0 is the bias, Q_0 is 1.
            fewer = above - upper[-1] if len(upper) > 1 else assignment.each(self.above[0].bias.to(x.dtype))
            below_fewer = below - lower[-1]
            ratio = (below * above + below_fewer * fewer) / (below.square() + below_fewer.square())
        answer: Tensor = self.down(ratio, assignment)
        return answer

    @staticmethod
    def _terms(layers: nn.ModuleList, x: Tensor, assignment: Assignment) -> list[Tensor]:
        """a_1 x, a_2 x^2, ..."""
        found, power = [], torch.ones_like(x)
        for layer in layers:
            power = power * x
            found.append(layer(power, assignment))
        return found


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
