"""Architecture parameters: one vector of logits per group, with an Adam of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.config import Config
from nas_core.relax import Group
from training.checkpoint import optimizer_state, restore_optimizer


class AlphasConfig(Config):
    """How the architecture parameters are trained. The defaults are those of DARTS (section 3.1.1)."""

    alpha_lr: float = Field(default=3e-4, gt=0, le=10, description="of the architecture parameters (Adam)")
    alpha_beta1: float = Field(default=0.5, ge=0, lt=1)
    alpha_beta2: float = Field(default=0.999, ge=0, lt=1)
    alpha_weight_decay: float = Field(default=1e-3, ge=0, le=1)
    alpha_std: float = Field(default=1e-3, ge=0, le=10, description="they start normal around 0")


class Alphas:
    """Per group a vector [candidates], drawn from torch's generator in the order of the groups."""

    def __init__(self, groups: Mapping[str, Group], config: AlphasConfig, device: torch.device) -> None:
        self.vectors = {
            name: nn.Parameter((config.alpha_std * torch.randn(len(group.options))).to(device))
            for name, group in groups.items()
        }
        self.optimizer = torch.optim.Adam(
            self.vectors.values(),
            config.alpha_lr,
            (config.alpha_beta1, config.alpha_beta2),
            weight_decay=config.alpha_weight_decay,
        )

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self.vectors.values())

    def softmax(self) -> dict[str, Tensor]:
        """Mixing weights; differentiable in the vectors."""
        return {name: vector.softmax(0) for name, vector in self.vectors.items()}

    def step(self) -> None:
        """One Adam step by the gradients that the vectors have."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        tensors, plain = optimizer_state(self.optimizer)
        vectors = {name: vector.detach().clone() for name, vector in self.vectors.items()}
        return {"vectors": vectors, "tensors": tensors, "plain": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, vector in self.vectors.items():
                vector.copy_(state["vectors"][name])
        restore_optimizer(self.optimizer, state["tensors"], state["plain"])


def plain(weights: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """Weights as plain numbers, for a record of the search."""
    return {name: tuple(weight.detach().tolist()) for name, weight in weights.items()}
