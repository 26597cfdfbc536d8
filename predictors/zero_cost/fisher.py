"""Fisher: how much the loss depends on the channels of an untrained network.

Turner, Crowley, O'Boyle, Storkey and Gray, "BlockSwap: Fisher-guided Block Substitution for Network Compression on a
Budget", ICLR 2020, equation 4, after Theis et al. 2018: with an output channel a of a convolution or linear layer,
before any normalisation, 0.5 * mean over samples of (sum over positions of a * dL/da)^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total, weights
from predictors.need import Need
from predictors.proxy import IMAGES, Unscorable


class Fisher:
    """The Fisher information of the channels, counted once for every weight that leads to a channel, as the published
    scores of networks do (Abdelfattah et al., ICLR 2021); 0, the least, for a network whose layers the loss does not
    reach. Images only: the nodes of a graph are no independent samples of a channel.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = IMAGES
    needs: ClassVar[Need] = Need.CHANNELS
    components: ClassVar[tuple[str, ...]] = ("fisher",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network that computes no convolution and no linear layer."""
        channels = forward.passed.channels
        if not channels:
            raise Unscorable("the network computes no convolution and no linear layer")
        named = weights(forward.model)
        return {"fisher": total(each.double() * named[name][0].numel() for name, each in channels.items())}
