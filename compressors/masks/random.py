"""Weights at random: what every other method is to be held against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressors.masks.masking import Masking
from nas_core.seeds import derive


class Random(Masking):
    """Every weight is as likely to stay as any other, whatever its layer."""

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        return {name: self._draws(name, weight, round) for name, weight in weights.items()}

    def _draws(self, name: str, weight: Tensor, round: int) -> Tensor:
        """Drawn on the CPU, so that every device sees the same ones."""
        draws = torch.Generator().manual_seed(derive(self.subject.seed, round, "masks", name))
        return torch.rand(weight.shape, generator=draws, dtype=torch.float64).to(weight.device)
