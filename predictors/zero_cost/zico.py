"""ZiCo: how large and how steady over batches the gradients of an untrained network are.

Li, Yang, Bhardwaj and Marculescu, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023:
the sum over layers of log(sum over weights of mean |g| / std g), mean and population standard deviation over two
batches. As in the published code the deviation is that of the gradient, not of its absolute value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class ZiCo:
    """The score over the two halves of the batch; in a graph over the two halves of the labelled nodes.

    Weights whose two gradients are equal are left out, and layers of only such weights. No layer scores less than 0, so
    that 0 is the least, for a network whose weights the loss does not reach.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("zico",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for fewer than two samples, and without convolutions and linear layers."""
        if forward.samples < 2:
            raise Unscorable("one sample makes no two batches")
        one, other = (forward.gradients(half) for half in forward.halves())
        if not one:
            raise Unscorable("the network has no convolution and no linear layer")
        layers = []
        for name, first in one.items():
            second = other[name]
            mean, deviation = (first.abs() + second.abs()) / 2, (first - second).abs() / 2
            ratio = (mean / deviation).where(deviation != 0, 0.0).sum(dtype=torch.float64)
            if ratio != 0:
                layers.append(ratio.log())
        return {"zico": total(layers)}
