"""Losses that spread tokens over experts, and how many experts a token may have."""

from __future__ import annotations

import torch
from torch import Tensor

from nas_core.errors import UsageError


def check_active(name: str, active: int, experts: int, most: int | None = None) -> None:
    """Raises UsageError where a router cannot choose so many experts."""
    limit = experts if most is None else min(most, experts)
    if not 1 <= active <= limit:
        raise UsageError(f"router {name}: {active} active of {experts} experts; it takes 1 to {limit}")


def squared_variation(values: Tensor) -> Tensor:
    """The square of the coefficient of variation, CV(values)^2 (Shazeer et al. 2017, equation 7)."""
    return values.var(correction=0) / values.mean().square()


def switch_loss(first: Tensor, shares: Tensor) -> Tensor:
    """`E sum_i f_i P_i`, 1 where both are equal for all experts: f the fraction of tokens whose first choice is expert
    i (no gradient), P the mean of its probabilities (Fedus et al. 2021, equations 4 to 6)."""
    experts = shares.shape[-1]
    fractions = first.flatten().bincount(minlength=experts) / first.numel()
    return experts * (fractions.to(shares.dtype) * shares.flatten(0, -2).mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """The mean of logsumexp(logits)^2 (Zoph et al., "ST-MoE", 2022, equation 5)."""
    return torch.logsumexp(logits, -1).square().mean()
