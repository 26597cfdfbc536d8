"""Balance without a loss (Wang et al., "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", 2024,
arXiv 2408.15664)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen
from search_spaces.operators.routers.balance import check_active


class LossFree(nn.Module):
    """s = sigmoid(W x); chosen are the largest s + b, weighted by s over the sum of the chosen ones. After each
    training pass b_i goes up by `rate` where expert i got fewer tokens than the mean, and down where it got more
    (algorithm 1). No gradient reaches b. Raises UsageError for an impossible number of active experts."""

    bias: Tensor

    def __init__(self, features: int, experts: int, active: int, rate: float = 0.001) -> None:
        super().__init__()
        check_active("loss-free", active, experts)
        self.active, self.rate = active, rate
        self.gate = nn.Linear(features, experts, bias=False)
        self.register_buffer("bias", torch.zeros(experts))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        scores = self.gate(x).sigmoid()
        chosen = (scores.detach() + self.bias).topk(self.active, -1).indices
        weights = scores.gather(-1, chosen)
        if self.active > 1:  # of one alone the quotient would be 1, and no gradient would reach the router
            weights = weights / weights.sum(-1, keepdim=True)
        if self.training:
            loads = chosen.flatten().bincount(minlength=len(self.bias)).float()
            with torch.no_grad():
                self.bias += self.rate * (loads.mean() - loads).sign()
        return Chosen(chosen, weights, scores / scores.sum(-1, keepdim=True))
