"""SNIP: how much the loss depends on the connections of an untrained network.

Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, equation 5; as
the score of a network, summed over all weights, Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR
2021, equation 1: sum |theta * dL/dtheta|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class Snip:
    """The sum of the connection sensitivities; 0, the least, for a network whose weights the loss does not reach."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.GRADIENTS
    components: ClassVar[tuple[str, ...]] = ("snip",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without convolutions and linear layers."""
        gradients = forward.passed.gradients
        if not gradients:
            raise Unscorable("the network has no convolution and no linear layer")
        named = weights(forward.model)
        return {"snip": total((named[name].detach() * gradient).abs() for name, gradient in gradients.items())}
