"""LogSynFlow: SynFlow whose gradients count by their logarithm, so that deep networks do not explode.

Cavagnero, Robbiano, Caputo and Averta, "FreeREA: Training-Free Evolution-based Architecture Search", WACV 2023:
sum |theta| log(1 + dR/dtheta), with R as in SynFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK
from predictors.zero_cost.synflow import flow, total


class LogSynFlow:
    """0, the worst, where nothing flows from input to output; the deviations are those of `SynFlow`."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("logsynflow",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without weights, or whose flow is beyond float64."""
        # A softmax can turn a gradient negative; its size counts.
        return {"logsynflow": total([weight * gradient.abs().log1p() for weight, gradient in flow(forward)])}
