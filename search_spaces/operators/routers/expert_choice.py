"""Experts choose tokens (Zhou et al., "Mixture-of-Experts with Expert Choice Routing", NeurIPS 2022, arXiv
2202.09368)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Taken
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active


class ExpertChoice(nn.Module):
    """S = softmax over experts of W x; each expert takes the `ceil(t active / experts)` tokens of a sample with its
    largest S, weighted by them (section 3.2, with the capacity factor `active`). The paper's experts choose among all
    tokens of a batch; these among those of one sample, so that a sample's answer is its own. Raises UsageError for an
    impossible number of active experts."""

    by_sample = True

    def __init__(self, features: int, experts: int, active: int) -> None:
        super().__init__()
        check_active("expert-choice", active, experts)
        self.active = active
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None, real: Tensor | None = None) -> Taken:
        shares = probabilities(self.gate(x))
        most = self._most(x.shape[1])
        if real is None:
            weights, tokens = shares.transpose(1, 2).topk(most, -1)
            return Taken(tokens, weights, shares)
        weights, tokens = shares.masked_fill(~real.unsqueeze(-1), 0).transpose(1, 2).topk(most, -1)
        beyond = torch.arange(most, device=x.device) >= self._most(real.sum(1))[:, None, None]
        return Taken(tokens, weights.masked_fill(beyond, 0), shares)

    def _most(self, tokens: Any) -> Any:
        """How many tokens an expert takes, of a sample of so many."""
        return -(-tokens * self.active // self.gate.out_features)
