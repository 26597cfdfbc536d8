"""Optimal brain apoptosis: the second-order term of a weight's removal, with all its interactions.

Sun et al., "Optimal Brain Apoptosis", ICLR 2025: the score of weight i is its row of the second-order Taylor term,
theta_i times (H theta)_i, where every weight is taken away at once. `hessian: exact` is what the authors call FastOBA:
the product of the loss's whole Hessian with theta, by double backward. `hessian: series` is what the paper derives: of
the two parts of the Hessian, the curvature of the loss in the outputs (Gauss-Newton, J' L'' J) and the loss's slope
times the curvature of the network, only the second. It equals the published sweeps over layers in series and in
parallel wherever activations are piecewise linear; of smooth ones the curvature counts here, which the sweeps leave
out.

Per unit and member of its group (rows of what makes it, columns of what reads it) the scores of weights are summed with
their signs, averaged over batches, then taken absolute, and averaged over members. Biases and normalisations do not
count, as in the published code. What differs from it: 20 batches instead of 200, and no division by the largest score
of a group, which is left to the allocation.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.passes import BATCHES, Loss, differentiable, drawn, hessian_product
from compressors.importance.score import MADE, READ, Members, Scores, as_scores
from nas_core.batch import Batch
from nas_core.config import Config as BaseConfig


class Oba:
    """The mean over members of abs(mean over batches of the sum of theta * (H theta))."""

    class Config(BaseConfig):
        """On how many batches, and of which Hessian."""

        batches: int = Field(default=BATCHES, ge=1, description="training batches that the score is a mean over")
        hessian: Literal["exact", "series"] = Field(
            default="exact", description="that of the loss, or the part of it that the paper derives"
        )

    needs: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        members = Members(network, groups, MADE + READ, weights=True)
        loss = Loss(network, subject)
        total: dict[str, Tensor] = {}
        count = 0
        with differentiable(network) as parameters:
            for batch in drawn(subject, round, self._config.batches):
                found = elements(loss, batch, parameters, series=self._config.hessian == "series")
                for name, sums in members.sums(found).items():
                    total[name] = total[name] + sums if name in total else sums
                count += 1
        return as_scores({name: (value / max(count, 1)).abs().mean(0) for name, value in total.items()})


def elements(loss: Loss, batch: Batch, parameters: dict[str, nn.Parameter], series: bool = False) -> dict[str, Tensor]:
    """theta * (H theta) by name, where H is the Hessian of the loss in all parameters, or with `series` that of the
    outputs times the slope of the loss in them, which is held fixed."""
    output = loss.output(batch)
    value = loss.of(output, batch)
    if series:
        (slope,) = torch.autograd.grad(value, [output], retain_graph=True)
        value = (slope * output).sum()
    theta = {name: one.detach() for name, one in parameters.items()}
    product = hessian_product(value, parameters, theta)
    return {name: theta[name] * one for name, one in product.items()}
