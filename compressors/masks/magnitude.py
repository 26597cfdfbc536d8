"""Weights of small magnitude: class-blind, class-uniform, class-distribution (See, Luong and Manning, CoNLL 2016).

Class-blind is one threshold of |w| for all layers, class-uniform the same share in every layer, class-distribution one
threshold of |w| / std(w), the deviation being that of the layer's weights that are not masked yet. `which` leaves all
but recurrent weights alone: `ih` those from the inputs, `hh` those from the state, over all recurrent layers jointly
(Darji, "Investigating Sparsity in Recurrent Neural Networks", 2021: class-blind, biases excluded).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from compressors.masks.density import prunable
from compressors.masks.masking import Masking, Masks, Settings, largest, shared_out

Scope = Literal["blind", "uniform", "distribution"]
RECURRENT: Mapping[str, tuple[str, ...]] = {
    "ih": ("weight_ih",),
    "hh": ("weight_hh",),
    "both": ("weight_ih", "weight_hh"),
}


class MagnitudeSettings(Settings):
    """Which thresholds, of which weights."""

    scope: Scope = Field(
        default="blind",
        description="blind: one threshold; uniform: the same share of every layer; distribution: one threshold of "
        "magnitudes divided by their layer's standard deviation",
    )
    which: Literal["ih", "hh", "both"] | None = Field(
        default=None, description="of the recurrent layers alone: weights of their inputs, of their states, or both"
    )


class Magnitude(Masking):
    """Masks the smallest weights. With `which`, `density` is the share that stays of the chosen recurrent weights."""

    Config: ClassVar[type[Masks]] = MagnitudeSettings

    def stays(self, network: nn.Module) -> Mapping[str, str]:
        reasons = dict(super().stays(network))
        if getattr(self.config, "which", None) is not None:
            chosen = recurrent(network, self.config.which)
            others = [name for name in prunable(network) if name not in chosen]
            reasons |= dict.fromkeys(others, f"it is no weight '{self.config.which}' of a recurrent layer")
        return reasons

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        magnitudes = {name: weight.detach().abs() for name, weight in weights.items()}
        if self.config.scope != "distribution":
            return magnitudes
        return {name: one / _deviation(weights[name].detach()) for name, one in magnitudes.items()}

    def allotted(self, scores: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
        if self.config.scope != "uniform":
            return super().allotted(scores, keep)
        left = {name: int((score > -float("inf")).sum()) for name, score in scores.items()}
        return {name: largest({name: scores[name]}, count)[name] for name, count in shared_out(left, keep).items()}


def recurrent(network: nn.Module, which: str) -> set[str]:
    """The names of the weights of all recurrent layers that are of this set (of `RECURRENT`)."""
    return {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, nn.RNNBase)
        for name, _ in module.named_parameters(recurse=False)
        if name.startswith(RECURRENT[which])
    }


def _deviation(weight: Tensor) -> Tensor:
    """The standard deviation of the entries that are not zero; 1 where there is none."""
    there = weight[weight != 0]
    deviation = there.std(correction=0)
    return deviation if len(there) and bool(deviation > 0) else deviation.new_ones(())
