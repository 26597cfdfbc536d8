"""Top-2 gating (Lepikhin et al., "GShard", ICLR 2021, arXiv 2006.16668, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, switch_loss


class GShard(nn.Module):
    """The two experts of the largest softmax, weighted by it, so that both weights sum to 1. In training the second one
    is kept with probability min(1, weight / threshold); the loss gets `balance` E sum f_i P_i, f of first choices.
    Raises UsageError for more than two active experts."""

    def __init__(
        self, features: int, experts: int, active: int = 2, threshold: float = 0.2, balance: float = 0.01
    ) -> None:
        super().__init__()
        check_active("gshard", active, experts, most=2)
        self.active, self.threshold, self.balance = active, threshold, balance
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        shares = probabilities(self.gate(x))
        weights, chosen = shares.topk(self.active, -1)
        if self.active > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        if not self.training:
            return Chosen(chosen, weights, shares)
        kept = torch.rand_like(weights) * self.threshold < weights
        kept[..., 0] = True
        terms = {"balance_loss": self.balance * switch_loss(chosen[..., 0], shares)}
        return Chosen(chosen, weights, shares, terms, kept if self.active > 1 else None)
