"""SNIP: weights that the loss of an untrained network hardly depends on.

Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, equations 3 to
5: the sensitivity of a connection is |dL/dc| at c = 1, where the weight is c theta, hence |theta dL/dtheta|; divided by
their sum, which changes no ranks and is left out. One batch, batch normalisation by its statistics, dropout off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from compressors.importance.passes import Loss, drawn, gradients
from compressors.masks.masking import Masks
from compressors.masks.start import AtStart, StartMasking, starting


class Snip(StartMasking):
    """Masks what has the least connection sensitivity, in one step."""

    Config: ClassVar[type[Masks]] = AtStart
    needs = ("linear", "data")
    kept = True

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        (batch,) = drawn(self.subject, round, 1)
        with starting(network, self.subject) as (copied, parameters):
            found = gradients(Loss(copied, self.subject)(batch), {name: parameters[name] for name in weights})
        return {name: (weights[name].detach() * gradient).abs() for name, gradient in found.items()}
