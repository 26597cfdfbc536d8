"""The Switch router (Fedus, Zoph and Shazeer, "Switch Transformers", JMLR 2022, arXiv 2101.03961)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, switch_loss, z_loss


class Switch(nn.Module):
    """p = softmax(W x); the expert with the largest, weighted by it. In training x is multiplied by U(1 - jitter, 1 +
    jitter), and the loss gets `balance` E sum f_i P_i (equation 4) and `z` times the z-loss. Raises UsageError unless
    one expert is active."""

    def __init__(
        self, features: int, experts: int, active: int = 1, jitter: float = 0.01, balance: float = 0.01, z: float = 0.0
    ) -> None:
        super().__init__()
        check_active("switch", active, experts, most=1)
        self.active = active
        self.jitter, self.balance, self.z = jitter, balance, z
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        logits = self.gate(x)
        shares = probabilities(logits)
        weights, chosen = shares.max(-1, keepdim=True)
        terms = {}
        if self.training:
            terms["balance_loss"] = self.balance * switch_loss(chosen, shares)
        if self.training and self.z:
            terms["z_loss"] = self.z * z_loss(logits)
        return Chosen(chosen, weights, shares, terms)
