"""SynFlow: how much flows through the weights of a network, without any data.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020; as a proxy in Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021:
with absolute parameters, without normalisation and for inputs of ones, R is the sum of the outputs and the score
sum |theta dR/dtheta| over the weights of convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable
from training.flow import flow_gradients, ones, positive


class SynFlow:
    """The score itself in float64, not its logarithm (the ranks are the same): up to some 1e60 for usual networks.

    0, the worst, where nothing flows from input to output. On a graph all nodes have features of ones, and R is over
    all nodes. What deviates from the paper is said in `training.flow`.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("synflow",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without weights, or whose flow is beyond float64."""
        return {"synflow": total([weight * gradient for weight, gradient in flow(forward)])}


def flow(forward: ForwardPass) -> list[tuple[Tensor, Tensor]]:
    """Every weight |theta| of convolutions and linear layers, and the gradient of R with respect to it, in float64.

    Raises Unscorable for a network without weights.
    """
    model = positive(forward.copy())
    found = list(weights(model).values())
    if not found:
        raise Unscorable("the network has no weights of convolutions or linear layers")
    gradients = flow_gradients(model, ones(forward.batch.inputs, forward.task), found)
    return [(weight.detach(), gradient) for weight, gradient in zip(found, gradients, strict=True)]


def total(terms: Sequence[Tensor]) -> float:
    """The sum of all entries. Raises Unscorable where it is beyond float64."""
    found = float(torch.stack([term.abs().sum() for term in terms]).sum())
    if not math.isfinite(found):
        raise Unscorable("the flow through the network is too large for float64")
    return found
