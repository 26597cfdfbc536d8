"""The gate of KAMoE (Genet and Inzirillo, "KAMoE: Kolmogorov-Arnold Mixture of Experts", 2024, arXiv 2409.15161)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Every
from search_spaces.layers.dispatch import Mixed
from search_spaces.operators.experts.kan import KanLayer


class Grkan(nn.Module):
    """Gated residual Kolmogorov-Arnold network: h = relu(A (x * kernel)), u = KAN(elu(KAN(h))), and the weights of all
    experts are sigmoid(LN(skip(h) + linear(u) sigmoid(gate(u)))). The kernel, which starts at 1, is the gate's alone:
    before the experts it would be a part of their first matrices. `active` is no choice here: all are computed."""

    def __init__(
        self, features: int, experts: int, active: int = 1, hidden: int = 32, dropout: float = 0.1, intervals: int = 5
    ) -> None:
        super().__init__()
        self.active = experts
        self.kernel = nn.Parameter(torch.ones(features))
        self.embedding = nn.Linear(features, hidden)
        self.skip = nn.Linear(hidden, experts)
        self.first = KanLayer(1, hidden, experts, intervals)
        self.second = KanLayer(1, experts, experts, intervals)
        self.linear, self.gate = nn.Linear(experts, experts), nn.Linear(experts, experts)
        self.norm = nn.LayerNorm(experts)
        self.dropout = dropout

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Mixed:
        h = functional.relu(self.embedding(x * self.kernel)).flatten(0, 1)
        u = self.second(functional.elu(self.first(h, Every())), Every())[0]  # of the one expert that these layers have
        u = functional.dropout(u, self.dropout, self.training)
        weights = self.norm(self.skip(h) + self.linear(u) * self.gate(u).sigmoid()).sigmoid().unflatten(0, x.shape[:2])
        return Mixed(weights, weights / weights.sum(-1, keepdim=True))
