"""Experts that are always the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen


class FixedExperts(nn.Module):
    """Every token by the experts `chosen`, first choices first, with `weights`, one number each: what a router decides
    for one task."""

    chosen: Tensor
    weights: Tensor

    def __init__(self, experts: int, active: int) -> None:
        super().__init__()
        self.active, self.experts = active, experts
        self.register_buffer("chosen", torch.arange(active))
        self.register_buffer("weights", torch.full((active,), 1 / active))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        n, t, _ = x.shape
        weights, chosen = self.weights.expand(n, t, -1), self.chosen.expand(n, t, -1)
        shares = x.new_zeros(self.experts).scatter(0, self.chosen, self.weights.to(x.dtype)).expand(n, t, -1)
        return Chosen(chosen, weights, shares)
