"""First-order Taylor: weights whose removal changes the loss of a trained network least, to first order.

Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 8, for single weights:
|theta g| with the mean gradient g of the loss. Here the network is in evaluation mode and every batch counts the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from compressors.importance.passes import BATCHES, Loss, differentiable, drawn, gradients
from compressors.masks.masking import Masking, Masks, Settings
from nas_core.batch import Batch
from training.compute import add


class TaylorSettings(Settings):
    """How much is looked at."""

    batches: int = Field(default=BATCHES, ge=1, description="batches of the training part that scores are a mean of")


class Taylor(Masking):
    """Masks the smallest |theta g|."""

    Config: ClassVar[type[Masks]] = TaylorSettings
    needs = ("linear", "data")
    kept = True

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        return {name: one.abs() for name, one in self.elements(network, weights, round).items()}

    def elements(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        """theta * g, the mean over batches."""
        loss = Loss(network, self.subject)

        def of(batch: Batch, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, Tensor]:
            chosen = {name: parameters[name] for name in weights}
            return {name: chosen[name].detach() * one for name, one in gradients(loss(batch), chosen).items()}

        with differentiable(network) as parameters:
            batches = drawn(self.subject, round, self.config.batches)
            return mean(of(batch, parameters) for batch in batches)


def mean(found: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean, by name, of the tensors of every batch."""
    sums: dict[str, Tensor] = {}
    count = 0
    for one in found:
        add(sums, one)
        count += 1
    return {name: total / count for name, total in sums.items()}
