"""SparseMixer-v2, the router of GRIN (Liu et al., "GRIN: GRadient-INformed MoE", 2024, arXiv 2409.12136, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active, switch_loss

FIRST_POINT = 1 / 3  # where Heun's third-order method evaluates, beside 1, with probability 3/4


class Grin(nn.Module):
    """An expert is drawn from the softmax of those whose logits are near the largest, `(max z - z) / max(|z|, max z) <=
    2 jitter`, and weighted by its probability p. The gradient of the weight goes to the logits as that of p, and p is
    multiplied by 1/3 in three of four draws that are not the largest logit: the expected gradient is that of the
    mixture of all these experts to the third order (Heun's method). A second expert is drawn in the same way of the
    others. In evaluation mode the largest are taken, with weight p. The loss gets `balance` E sum f_i P_i, f of what
    was drawn first. Raises UsageError for more than two active experts."""

    def __init__(
        self, features: int, experts: int, active: int = 1, jitter: float = 0.1, balance: float = 0.01
    ) -> None:
        super().__init__()
        check_active("grin", active, experts, most=2)
        self.active, self.jitter, self.balance = active, jitter, balance
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        logits = self.gate(x)
        left, drawn, weights = logits, list[Tensor](), list[Tensor]()
        for _ in range(self.active):
            shares = near_softmax(left, self.jitter)
            largest = left.argmax(-1, keepdim=True)
            one = _drawn(shares) if self.training else largest
            weight = shares.gather(-1, one)
            if self.training:
                early = (one != largest) & (torch.rand_like(weight) < 0.75)
                weight = scaled(weight, torch.where(early, FIRST_POINT, 1.0))
            drawn.append(one)
            weights.append(weight)
            left = left.scatter(-1, one, -torch.inf)
        chosen, plain = torch.cat(drawn, -1), probabilities(logits)
        terms = {"balance_loss": self.balance * switch_loss(chosen[..., 0], plain)} if self.training else {}
        return Chosen(chosen, torch.cat(weights, -1), plain, terms)


def near_softmax(logits: Tensor, jitter: float) -> Tensor:
    """The softmax over the logits near the largest; -inf ones are out."""
    largest = logits.detach().max(-1, keepdim=True).values
    far = (largest - logits.detach()) / torch.maximum(logits.detach().abs(), largest) > 2 * jitter
    return probabilities(logits.masked_fill(far | logits.isinf(), -torch.inf))


def scaled(weight: Tensor, factor: Tensor) -> Tensor:
    """`weight * factor`, with the gradient of the weight alone."""
    return weight + (weight * (factor - 1)).detach()


def _drawn(shares: Tensor) -> Tensor:
    """One of each distribution, `[..., 1]`."""
    return torch.multinomial(shares.detach().flatten(0, -2), 1).view(*shares.shape[:-1], 1)
