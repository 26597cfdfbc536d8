"""Optimal brain damage: the second-order term of a weight's removal, by the diagonal of the Hessian alone.

LeCun, Denker and Solla, "Optimal Brain Damage", NeurIPS 1989, equation 5: s_i = H_ii theta_i^2 / 2. The first-order
term is left out, as the network is taken to be at a minimum. The diagonal, which the paper gets by a second backward
rule of its own, is estimated: by Hutchinson's E[v * (H v)] with random signs v (Bekas et al. 2007; signs as in Yao et
al., "AdaHessian", 2021), or by the empirical Fisher information E[g^2] of single samples, for which the mean gradient
of a batch of n samples stands: n times its square, which has the same expectation where the gradients of the samples
are independent and their mean is zero. Hutchinson's may be negative: where it is, losing the weight lowers the loss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.passes import BATCHES, Loss, differentiable, drawn, gradients, hessian_product
from compressors.importance.score import Members, Scores, as_scores
from nas_core.batch import Batch
from nas_core.config import Config as BaseConfig
from nas_core.seeds import derive


class Obd:
    """H_ii theta_i^2 / 2, signed, summed over the weights, scales and shifts that make a unit, the mean over
    batches."""

    class Config(BaseConfig):
        """On how many batches, and which diagonal."""

        batches: int = Field(default=BATCHES, ge=1, description="training batches that the score is a mean over")
        hessian: Literal["hutchinson", "fisher"] = Field(
            default="hutchinson", description="how its diagonal is estimated: v * (H v), or n g^2"
        )

    needs: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        loss = Loss(network, subject)
        random = torch.Generator().manual_seed(derive(subject.seed, round, "signs"))
        diagonal: dict[str, Tensor] = {}
        count = 0
        with differentiable(network) as parameters:
            for batch in drawn(subject, round, self._config.batches):
                for name, found in self._diagonal(loss, batch, parameters, random).items():
                    diagonal[name] = diagonal[name] + found if name in diagonal else found
                count += 1
            elements = {
                name: 0.5 / max(count, 1) * diagonal[name] * parameters[name].detach().square() for name in diagonal
            }
        return as_scores({name: value.sum(0) for name, value in Members(network, groups).sums(elements).items()})

    def _diagonal(
        self, loss: Loss, batch: Batch, parameters: dict[str, nn.Parameter], random: torch.Generator
    ) -> dict[str, Tensor]:
        """An estimate on one batch, by name."""
        if self._config.hessian == "fisher":
            return {name: batch.samples * one.square() for name, one in gradients(loss(batch), parameters).items()}
        signs = {
            name: (torch.randint(2, one.shape, generator=random) * 2 - 1).to(one) for name, one in parameters.items()
        }
        return {name: signs[name] * one for name, one in hessian_product(loss(batch), parameters, signs).items()}
