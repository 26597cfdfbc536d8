"""SMEAR: experts are merged, not chosen (Muqeeth, Liu and Raffel, "Soft Merging of Experts with Adaptive Routing", TMLR
2024, arXiv 2306.03745)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.dispatch import Averaged
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.task import known


class Smear(nn.Module):
    """p = softmax(W LN(mean of the sample's tokens)) with normalised rows of W, whose common scale starts at `scale`; a
    sample passes the expert whose weights are the mean of all by p (section 2.2). In training each p is set to 0 with
    probability `dropout`, and what is left is divided by its sum. `active` is no choice here: one is computed."""

    by_sample = True

    def __init__(self, features: int, experts: int, active: int = 1, scale: float = 1.0, dropout: float = 0.1) -> None:
        super().__init__()
        self.active = 1
        self.dropout = dropout
        self.norm = nn.LayerNorm(features)
        self.weight = nn.Parameter(torch.randn(experts, features) * 0.02)
        self.row_scale = nn.Parameter(torch.full((features,), scale))

    def forward(self, x: Tensor, condition: Tensor | None = None, real: Tensor | None = None) -> Averaged:
        mean = x.mean(1) if real is None else (x * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
        return Averaged(self._dropped(self._shares(mean)))

    def _shares(self, given: Tensor) -> Tensor:
        """By what is given of each sample, `[n, features]`: `[n, experts]`."""
        rows = functional.layer_norm(self.weight, self.weight.shape[1:]) * self.row_scale
        return probabilities(functional.linear(self.norm(given), rows / rows.shape[1] ** 0.5))

    def _dropped(self, shares: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return shares
        kept = shares * (torch.rand_like(shares) >= self.dropout)
        total = kept.sum(-1, keepdim=True)
        return torch.where(total > 0, kept / total.clamp_min(1e-9), shares)  # never without any


class SmearByTask(Smear):
    """SMEAR by an embedding of the sample's task in the place of the mean of its tokens, so that the expert of a task
    can be merged before anything runs. `forward` raises ValueError where no tasks are given."""

    def __init__(
        self, features: int, experts: int, active: int = 1, tasks: int = 1, scale: float = 1.0, dropout: float = 0.1
    ) -> None:
        super().__init__(features, experts, active, scale, dropout)
        self.embedding = nn.Embedding(tasks, features)

    def forward(self, x: Tensor, condition: Tensor | None = None, real: Tensor | None = None) -> Averaged:
        task, shares = known(condition, "smear-task"), self._shares(self.embedding.weight)
        if self.training and self.dropout:
            return Averaged(self._dropped(shares[task]))
        return Averaged(shares[task], of_tasks=(shares, task))  # one expert per task is merged
