"""Optimal Brain Apoptosis for single weights: the second-order change of the loss, with all interactions.

"Optimal Brain Apoptosis", ICLR 2025 (arXiv 2502.17941), in the form of its authors' FastOBA: theta * (H theta) by
double backward, a mean over batches. As in their unstructured script magnitudes are taken per tensor relative to the
largest, |w| / max |w| is added against vanishing gradients, one threshold serves all tensors, and the classifier stays.

Deviations: their `pruning_ratio` is the share that is *kept*; here `density` is. H is of the weights that may be
masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from compressors.importance.oba import elements
from compressors.importance.passes import Loss, differentiable, drawn
from compressors.masks.masking import Masking, Masks
from compressors.masks.taylor import TaylorSettings, mean


class ObaSettings(TaylorSettings):
    """The defaults are those of the published script, but for the number of batches (200 there)."""

    magnitude: bool = Field(default=True, description="whether |w| / max |w| of the tensor is added")
    classifier: bool = Field(default=False, description="whether the last linear map is masked too")


class Oba(Masking):
    """Masks the smallest |theta (H theta)|, per tensor relative to the largest, plus relative magnitudes."""

    Config: ClassVar[type[Masks]] = ObaSettings
    needs = ("linear", "data")
    kept = True

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        found = {name: _relative(one.abs()) for name, one in self.elements(network, weights, round).items()}
        if self.config.magnitude:
            found = {name: one + _relative(weights[name].detach().abs()) for name, one in found.items()}
        return found

    def elements(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        """theta * (H theta), the mean over batches."""
        loss = Loss(network, self.subject)
        with differentiable(network) as parameters:
            chosen = {name: parameters[name] for name in weights}
            batches = drawn(self.subject, round, self.config.batches)
            return mean(elements(loss, batch, chosen) for batch in batches)


def _relative(magnitudes: Tensor) -> Tensor:
    """Divided by the largest; zeros stay."""
    top = magnitudes.max()
    return magnitudes / top if bool(top > 0) else magnitudes
