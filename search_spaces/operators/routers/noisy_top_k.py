"""Noisy top-k gating (Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts
Layer", ICLR 2017, arXiv 1701.06538)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import UsageError
from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, squared_variation


class NoisyTopK(nn.Module):
    """H = x W_g + N(0, 1) softplus(x W_n); weights are the softmax of the k largest (equations 3 to 5), or, with
    `softmax` "before", what the softmax of all gives to those (as in Fedus et al. 2021), so that one active expert
    teaches the router too. In training the loss gets `importance` CV(importance)^2 (equations 6 and 7) and `load`
    CV(load)^2 (equations 8 to 11). Both matrices start at 0. There is no noise in evaluation mode. Raises UsageError
    for an impossible number of active experts, and for another `softmax`."""

    def __init__(
        self,
        features: int,
        experts: int,
        active: int,
        importance: float = 0.1,
        load: float = 0.1,
        softmax: str = "after",
    ) -> None:
        super().__init__()
        check_active("noisy-top-k", active, experts)
        if softmax not in ("after", "before"):
            raise UsageError(
                f"router noisy-top-k: softmax is '{softmax}'; it is before, or after, the top k are chosen"
            )
        self.active, self.importance, self.load = active, importance, load
        self.softmax = softmax
        self.gate = nn.Linear(features, experts, bias=False)
        self.noise = nn.Linear(features, experts, bias=False)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        clean = self.gate(x)
        if not self.training:
            return self._chosen(clean, *clean.topk(self.active, -1))
        deviation = functional.softplus(self.noise(x))
        noisy = clean + torch.randn_like(clean) * deviation
        largest, first = noisy.topk(min(self.active + 1, noisy.shape[-1]), -1)
        found = self._chosen(noisy, largest[..., : self.active], first[..., : self.active])
        gates = torch.zeros_like(clean).scatter(-1, found.chosen, found.weights)
        importances = gates.flatten(0, -2).sum(0)
        loads = selected(clean, noisy, deviation, largest, self.active).flatten(0, -2).sum(0)
        terms = {
            "importance_loss": self.importance * squared_variation(importances),
            "load_loss": self.load * squared_variation(loads),
        }
        return Chosen(found.chosen, found.weights, found.shares, terms)

    def _chosen(self, logits: Tensor, values: Tensor, chosen: Tensor) -> Chosen:
        shares = probabilities(logits)
        weights = probabilities(values) if self.softmax == "after" else shares.gather(-1, chosen)
        return Chosen(chosen, weights, shares)


def selected(clean: Tensor, noisy: Tensor, deviation: Tensor, largest: Tensor, active: int) -> Tensor:
    """The probability of each expert to be among the `active` ones if its noise alone were drawn anew (equations 8 and
    9), of the shape of the logits. `largest`: of the noisy ones one more than are active, where there are more."""
    if active == clean.shape[-1]:
        return torch.ones_like(clean)
    last_in, first_out = largest[..., active - 1 : active], largest[..., active:]
    # The k-th largest of the others: for one that is in, the first that is out.
    threshold = torch.where(noisy > first_out, first_out, last_in)
    return 0.5 * (1 + torch.erf((clean - threshold) / deviation / math.sqrt(2)))
