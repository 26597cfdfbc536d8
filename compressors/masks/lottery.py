"""Lottery tickets: masks found by training, weights from before it.

Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, "iterative pruning with resetting": train, mask the
smallest magnitudes among the weights that are left, give the others the values that they had before the training, train
again. Late rewinding (Frankle et al., "Stabilizing the Lottery Ticket Hypothesis", 2019): the values after step k.

The first training is the one that made the network. Every round masks the same share of what is left, at most `share`,
in as many rounds as the target needs, and rewinds *everything*: weights, biases, normalisations and their statistics.
The training after a round is as long as any other; its schedule and its order of batches begin anew.

Step k is not stored by the first training: the weights of step k are computed in every round, always the same, by k
optimiser steps of the dense initial network, by the recipe of the trainings after the rounds (without a teacher), on
the data in the order of this compression's seed. They are therefore not a point on the path of the first training, but
one of a training like those after the rounds.

Deviations: one threshold for all layers (`scope`: the first paper masks every layer by the same share, and the output
layer by half of it). A weight that is exactly 0 at the point that is rewound to counts as masked.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from compressors.compressor import Change, Round, Subject
from compressors.masks.density import prunable
from compressors.masks.magnitude import Magnitude, Scope
from compressors.masks.masking import Masks, mask
from compressors.masks.start import initial, known, load
from nas_core.errors import UsageError


class LotterySettings(Masks):
    """The defaults are those of the first paper."""

    share: float = Field(default=0.2, gt=0, lt=1, description="of the weights that are left, masked at most per round")
    rounds: int | None = Field(default=None, ge=1, le=1000, description="how many; by default as the share demands")
    rewind: int = Field(default=0, ge=0, description="optimiser steps after which weights are taken; 0: the initial")
    scope: Scope = Field(default="blind", description="as of mask-magnitude")
    classifier: bool = Field(default=True, description="whether the last linear map is masked too")


class Lottery(Magnitude):
    """Masks by magnitude and rewinds, round by round."""

    Config: ClassVar[type[Masks]] = LotterySettings

    def __init__(self, subject: Subject, config: Any) -> None:
        super().__init__(subject, config)
        known(subject, "initial")
        if config.rewind and subject.recipe is None:
            raise UsageError(f"rewind={config.rewind} trains as after a round: give --epochs, or rewind=0")
        densities = [target.limit(subject.base) for target in subject.targets]
        least = min([*densities, *(one for one in (config.density,) if one is not None)])
        least = min(least / subject.base.get("density", 1.0), 1.0)
        needed = max(1, math.ceil(math.log(least) / math.log(1 - config.share) - 1e-9))
        self.rounds = (Round(),) * (config.rounds or needed)

    def compress(self, network: nn.Module, round: int) -> Change:
        super().compress(network, round)
        masks = {name: weight.detach() != 0 for name, weight in prunable(network).items()}
        load(network, self._rewound())
        mask(prunable(network), masks)
        return Change(recalibrate=True, report=self.report(network), notes=(self.note,))

    def _rewound(self) -> nn.Module:
        """The network that weights are taken from."""
        from training.fit import first_steps

        subject, found = self.subject, initial(self.subject)
        if self.config.rewind and subject.recipe is not None:
            alone = subject.recipe.model_copy(update={"distillation": None})
            first_steps(
                *(found, subject.data, alone),
                device=subject.device,
                seed=subject.seed,
                steps=self.config.rewind,
            )
        return found
