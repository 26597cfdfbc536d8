"""Routing by attributes of a sample (Zhu et al., "Uni-Perceiver-MoE", NeurIPS 2022, arXiv 2206.04674, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, switch_loss
from search_spaces.operators.routers.task import known


class Attributes(nn.Module):
    """A vector of attributes, mapped, bent and normalised, decides for all tokens of a sample: the largest of softmax(W
    LN(gelu(A c))), weighted by it. In training N(0, 1) / experts is added to the logits. No token has a say, so that
    the experts of fixed attributes can be found before anything runs. Raises UsageError for an impossible number of
    active experts, and where no attributes are given."""

    def __init__(
        self, features: int, experts: int, active: int, attributes: int = 8, noise: float = 1.0, balance: float = 0.01
    ) -> None:
        super().__init__()
        check_active("attributes", active, experts, most=2)
        self.active, self.noise, self.balance = active, noise, balance
        self.embedding = nn.Linear(attributes, features)
        self.norm = nn.LayerNorm(features)
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None) -> Chosen:
        given = known(condition, "attributes").to(x.dtype)
        logits = self.gate(self.norm(functional.gelu(self.embedding(given))))
        if self.training and self.noise:
            logits = logits + torch.randn_like(logits) * self.noise / logits.shape[-1]
        shares = probabilities(logits).unsqueeze(1).expand(-1, x.shape[1], -1)
        weights, chosen = shares.topk(self.active, -1)
        terms = {"balance_loss": self.balance * switch_loss(chosen[..., 0], shares)} if self.training else {}
        return Chosen(chosen, weights, shares, terms)
