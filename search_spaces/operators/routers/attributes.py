"""Routing by attributes of a sample (Zhu et al., "Uni-Perceiver-MoE", NeurIPS 2022, arXiv 2206.04674, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import UsageError
from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, switch_loss
from search_spaces.operators.routers.task import known


class Attributes(nn.Module):
    """A vector of attributes, mapped, bent and normalised, decides for all tokens of a sample: the largest of softmax(W
    LN(gelu(A c))), weighted by it. In training N(0, 1) / experts is added to the logits. No token has a say, so that
    the experts of fixed attributes can be found before anything runs. With `tasks` a sample is given by the number of
    its task, whose attributes are the digits of its binary code, from 1 on. Raises UsageError for an impossible number
    of active experts and for more tasks than codes; `forward` raises ValueError where no attributes are given."""

    codes: Tensor

    def __init__(
        self,
        features: int,
        experts: int,
        active: int,
        attributes: int = 8,
        noise: float = 1.0,
        balance: float = 0.01,
        tasks: int = 0,
    ) -> None:
        super().__init__()
        check_active("attributes", active, experts, most=2)
        self.active, self.noise, self.balance = active, noise, balance
        if tasks >= 2**attributes:
            raise UsageError(f"router attributes: {attributes} attributes tell {2**attributes - 1} tasks, not {tasks}")
        self.tasks = tasks
        if tasks:
            numbers, digits = torch.arange(1, tasks + 1)[:, None], torch.arange(attributes)
            self.register_buffer("codes", (numbers >> digits & 1).float(), persistent=False)
        self.embedding = nn.Linear(attributes, features)
        self.norm = nn.LayerNorm(features)
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None) -> Chosen:
        given = known(condition, "attributes")
        if not self.tasks:
            shares = probabilities(self._noisy(self._logits(given.to(x.dtype))))
        elif self.training:
            shares = probabilities(self._noisy(self._logits(self.codes.to(x.dtype))[given]))
        else:  # of all of them together, as in `TaskRouter`
            shares = probabilities(self._logits(self.codes.to(x.dtype)))[given]
        shares = shares.unsqueeze(1).expand(-1, x.shape[1], -1)
        weights, chosen = shares.topk(self.active, -1)
        terms = {"balance_loss": self.balance * switch_loss(chosen[..., 0], shares)} if self.training else {}
        return Chosen(chosen, weights, shares, terms)

    def _noisy(self, logits: Tensor) -> Tensor:
        if not (self.training and self.noise):
            return logits
        return logits + torch.randn_like(logits) * self.noise / logits.shape[-1]

    def _logits(self, given: Tensor) -> Tensor:
        logits: Tensor = self.gate(self.norm(functional.gelu(self.embedding(given))))
        return logits
