"""NASWOT: how well the activation patterns of an untrained network tell the samples of a batch apart.

Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", ICML 2021, equations 1-2: with
the binary code of a sample (which activation units are on), K_ij is the number of units in which samples i and j
agree, and the score is log |det K|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from nas_core.config import Config as BaseConfig
from predictors.experts import WHY_NOT
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class Naswot:
    """The log-determinant of the agreement of codes, minus infinity where two samples have the same code.

    Deviation: all elementwise activations count, by the sign of their input, not ReLU alone.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.CODES
    components: ClassVar[tuple[str, ...]] = ("naswot",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without activations, and for layers of experts that are not merged."""
        codes = forward.passed.codes
        if forward.passed.sorted_rows:
            raise Unscorable(WHY_NOT)
        if codes is None or not forward.passed.units:
            raise Unscorable("the network has no elementwise activation")
        # Rounding leaves a determinant that is a little off zero.
        if (codes.tril(-1) == forward.passed.units).any():
            return {"naswot": float("-inf")}
        sign, value = torch.linalg.slogdet(codes)
        return {"naswot": float(value) if sign > 0 else float("-inf")}
