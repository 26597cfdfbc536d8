"""A router that learns nothing: what the others are to be better than."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active


class RandomRouter(nn.Module):
    """The experts of the largest entries of R x, where R is drawn at the start and stays: equal tokens have equal
    experts, as by a hash (Roller et al., "Hash Layers for Large Sparse Models", NeurIPS 2021, arXiv 2106.04426, go by
    the token's number, which is not known within a network). Weights are 1 / active. Raises UsageError for an
    impossible number of active experts."""

    matrix: Tensor

    def __init__(self, features: int, experts: int, active: int) -> None:
        super().__init__()
        check_active("random", active, experts)
        self.active = active
        self.register_buffer("matrix", torch.randn(experts, features))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        logits = nn.functional.linear(x, self.matrix)
        chosen = logits.topk(self.active, -1).indices
        return Chosen(chosen, torch.full_like(logits[..., : self.active], 1 / self.active), probabilities(logits))
