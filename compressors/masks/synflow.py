"""SynFlow: weights through which little flows, without any data, and without an empty layer.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
NeurIPS 2020, algorithm 1: with R the sum of the outputs for inputs of ones, absolute parameters and no normalisation,
in float64, the score is theta dR/dtheta; after step k of n the share density^(k/n) of the weights is left, and what is
left is scored anew. What is computed instead of normalisations, saturating activations and gates: `training.flow`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from compressors.masks.density import counts
from compressors.masks.masking import Masks, largest, mask
from compressors.masks.start import Start, StartMasking
from nas_core.errors import UsageError
from training.compute import answers_alone
from training.flow import flow_gradients, ones, positive
from training.tasks import sample_inputs


class SynFlowSettings(Masks):
    """The defaults are the paper's."""

    iterations: int = Field(default=100, ge=1, description="in which weights are masked and scored anew")
    classifier: bool = Field(default=True, description="whether the last linear map is masked too")
    weights: Start = Field(
        default="initial",
        description="initial: the weights before the training, as published; trained: those that there are",
    )


class SynFlow(StartMasking):
    """Masks the least synaptic flow, little by little, in one round."""

    Config: ClassVar[type[Masks]] = SynFlowSettings

    def apply(self, network: nn.Module, weights: Mapping[str, nn.Parameter], keep: int, round: int) -> None:
        """Raises UsageError for a flow beyond float64."""
        model = positive(answers_alone(copy.deepcopy(network)))
        named = dict(model.named_parameters())
        flowing = {name: named[name] for name in weights}
        begun, steps = sum(nonzero for nonzero, _ in counts(flowing).values()), self.config.iterations
        for step in range(1, steps + 1):
            left = keep if step == steps else math.ceil(begun * (max(keep, 1) / begun) ** (step / steps))
            mask(flowing, largest(self.flows(model, flowing), left))
        mask(weights, {name: one.detach() != 0 for name, one in flowing.items()})

    def flows(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """theta dR/dtheta of a network that is `training.flow.positive`; minus infinity where theta is 0."""
        inputs = self.subject.inputs or sample_inputs(self.subject.task, 1)
        inputs = tuple(tensor.to(self.subject.device) for tensor in inputs)
        found = flow_gradients(model, ones(inputs, self.subject.task), list(weights.values()))
        scores = {}
        for (name, weight), gradient in zip(weights.items(), found, strict=True):
            scores[name] = (weight.detach() * gradient).masked_fill(weight.detach() == 0, -math.inf)
            if bool((scores[name].isnan() | (scores[name] == math.inf)).any()):
                raise UsageError(f"the flow through '{name}' is too large for float64; take another method")
        return scores
