"""GraSP: how much the weights of an untrained network help its gradient to flow.

Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, equation 8;
summed over all weights, Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, equation 1: with the
gradient g and the Hessian H of the loss, both of the weights, sum -theta * (H g).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class GraSP:
    """The sum of -theta * (H g), at temperature 1; the minus sign is that of the published scores of networks."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.CURVATURE
    components: ClassVar[tuple[str, ...]] = ("grasp",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network whose weights the loss does not reach: 0 would be a good score."""
        passed = forward.passed
        if not any(gradient.any() for gradient in passed.gradients.values()):
            raise Unscorable("the loss reaches no weight of a convolution or linear layer")
        return {"grasp": total(-product for product in passed.curvature.values())}
