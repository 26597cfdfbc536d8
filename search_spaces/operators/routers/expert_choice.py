"""Experts choose tokens (Zhou et al., "Mixture-of-Experts with Expert Choice Routing", NeurIPS 2022, arXiv
2202.09368)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from search_spaces.layers.dispatch import Taken
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active


class ExpertChoice(nn.Module):
    """S = softmax over experts of W x; each expert takes the `ceil(t active / experts)` tokens of a sample with its
    largest S, weighted by them (section 3.2, with the capacity factor `active`). The paper's experts choose among all
    tokens of a batch; these among those of one sample, so that a sample's answer is its own. Raises UsageError for an
    impossible number of active experts."""

    def __init__(self, features: int, experts: int, active: int) -> None:
        super().__init__()
        check_active("expert-choice", active, experts)
        self.active = active
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Taken:
        shares = probabilities(self.gate(x))
        most = min(x.shape[1], math.ceil(x.shape[1] * self.active / shares.shape[-1]))
        weights, tokens = shares.transpose(1, 2).topk(most, -1)
        return Taken(tokens, weights, shares)
