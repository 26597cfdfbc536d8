"""First-order Taylor: weights whose removal changes the loss of a trained network least, to first order.

Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 8, for single weights:
|theta g| with the mean gradient g of the loss. Here the network is in evaluation mode and every batch counts the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.masks.elements import apart, gradients, loss_of
from compressors.masks.masking import Masking, Masks, Settings


class TaylorSettings(Settings):
    """How much is looked at."""

    batches: int = Field(default=50, ge=1, description="batches of the training part that scores are a mean of")


class Taylor(Masking):
    """Masks the smallest |theta g|."""

    Config: ClassVar[type[Masks]] = TaylorSettings
    needs = ("linear", "data")
    kept = True

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        return {name: one.abs() for name, one in self.elements(network, weights, round).items()}

    def elements(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        """theta * g, the mean over batches."""
        data = self.subject.data
        copied = apart(network, train=False)
        named = dict(copied.named_parameters())
        chosen = {name: named[name] for name in weights}
        sums = {name: torch.zeros_like(weight) for name, weight in chosen.items()}
        count = 0
        for batch in islice(data.batches("train", round, self.subject.seed), self.config.batches):
            count += 1
            with torch.enable_grad():
                for name, gradient in gradients(loss_of(copied, batch, data), chosen).items():
                    sums[name] += gradient
        return {name: chosen[name].detach() * one / count for name, one in sums.items()}
