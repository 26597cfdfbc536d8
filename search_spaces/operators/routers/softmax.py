"""All experts, mixed by a softmax (Jacobs et al., "Adaptive Mixtures of Local Experts", 1991)."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.dispatch import Mixed
from search_spaces.layers.probabilities import probabilities


class Softmax(nn.Module):
    """Weights softmax(W x). `active` is no choice here: all experts are computed."""

    def __init__(self, features: int, experts: int, active: int = 1) -> None:
        super().__init__()
        self.active = experts
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Mixed:
        shares = probabilities(self.gate(x))
        return Mixed(shares, shares)
