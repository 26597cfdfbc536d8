"""A zero-cost proxy of one's own: over how many directions the outputs of an untrained network spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class Spread:
    """The entropy of the singular values of the centred outputs: the logarithm of their effective rank."""

    class Config(BaseConfig):
        """What `my_proxy.py:Spread(power=2.0)` sets."""

        power: float = Field(default=1.0, gt=0, description="of the singular values")

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("spread",)

    def __init__(self, config: Config) -> None:
        self.power = config.power

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable where all samples are answered alike."""
        outputs = forward.passed.output.detach().double()
        values = torch.linalg.svdvals(outputs - outputs.mean(0)) ** self.power
        if values.sum() <= 1e-12:
            raise Unscorable("all samples are answered alike")
        shares = values / values.sum()
        return {"spread": float(-(shares * (shares + 1e-12).log()).sum())}
