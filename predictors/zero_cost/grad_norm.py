"""Gradient norm: how strongly the loss of one batch pulls at the weights of an untrained network.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3.2: the sum over
layers of the Euclidean norm of the gradient of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class GradNorm:
    """The sum of the norms of the layers' gradients, not the norm of all of them; 0, the least, for a network whose
    weights the loss does not reach."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.GRADIENTS
    components: ClassVar[tuple[str, ...]] = ("grad_norm",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without convolutions and linear layers."""
        gradients = forward.passed.gradients
        if not gradients:
            raise Unscorable("the network has no convolution and no linear layer")
        return {"grad_norm": total(gradient.norm() for gradient in gradients.values())}
