"""Jacobian covariance: how differently an untrained network reacts to the samples of a batch.

Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", version 1 (arXiv 2006.04647),
section 3: J_i is the derivative of the summed outputs with respect to input i. With the eigenvalues v of the
correlations of the rows of J, the score is -sum(log(v + k) + 1 / (v + k)), k = 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable

K = 1e-5


class JacobianCovariance:
    """The score of uncorrelated Jacobians is the best; minus infinity where one is constant, as in a dead network.

    Batch normalisation couples the samples, as in the published scores. In a graph the rows are the labelled nodes.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.JACOBIAN
    components: ClassVar[tuple[str, ...]] = ("jacob_cov",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for fewer than two samples, and for inputs that are integers of a vocabulary."""
        jacobian = forward.passed.jacobian
        if jacobian is None:
            raise Unscorable("the inputs are integers, by which nothing can be differentiated")
        if len(jacobian) < 2:
            raise Unscorable("one sample has nothing to correlate with")
        constant = (jacobian == jacobian[:, :1]).all(1).any()
        correlations = torch.corrcoef(jacobian.double())
        if constant or not correlations.isfinite().all():
            return {"jacob_cov": -math.inf}
        values = torch.linalg.eigvalsh(correlations) + K
        return {"jacob_cov": -float((values.log() + 1 / values).sum())}
