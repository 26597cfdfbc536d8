"""L2 norm: the size of the initial weights, which for one kind of initialisation is a function of their shapes.

Listed among the proxies of "NAS-Bench-Suite-Zero" (Krishnakumar et al., NeurIPS Datasets and Benchmarks 2022): the sum
over layers of the Euclidean norm of the weights. No data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, total, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class L2Norm:
    """The sum of the norms of the layers' weights."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("l2_norm",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without convolutions and linear layers."""
        named = weights(forward.model)
        if not named:
            raise Unscorable("the network has no convolution and no linear layer")
        return {"l2_norm": total(weight.detach().norm() for weight in named.values())}
