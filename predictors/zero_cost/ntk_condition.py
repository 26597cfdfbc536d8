"""Condition of the neural tangent kernel: how evenly an untrained network can learn the samples of a batch.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective"
(TE-NAS), ICLR 2021, section 3.1.1: with G_i the gradient of the summed outputs of sample i with respect to all weights,
kappa is the ratio of the largest to the smallest eigenvalue of G G'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable

SAMPLES = 32  # the kernel takes as many backward passes over as many samples


class NTKCondition:
    """-log kappa, the mean over `repeats` initialisations; minus infinity where the kernel is singular.

    As published the weights are drawn anew (He et al. 2015, normal, by fan out; biases 0), batch normalisation uses the
    statistics of the batch, and its scales count among the weights. At most 32 samples, or labelled nodes; the cost
    grows with the square of their number.
    """

    class Config(BaseConfig):
        samples: int = Field(SAMPLES, ge=2, le=SAMPLES, description="samples, or labelled nodes, at most")
        repeats: int = Field(1, ge=1, le=100, description="initialisations to average over")

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("ntk_condition",)

    def __init__(self, config: Config) -> None:
        self._samples, self._repeats = config.samples, config.repeats

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for fewer than two samples."""
        if forward.samples < 2:
            raise Unscorable("the kernel of one sample has one eigenvalue")
        model, generator = forward.copy(), forward.generator("ntk_condition")
        scores = []
        for _ in range(self._repeats):
            _initialise(model, generator)
            scores.append(-_log_condition(kernel(forward, model, self._samples)))
        return {"ntk_condition": sum(scores) / len(scores)}


def kernel(forward: ForwardPass, model: nn.Module, samples: int = SAMPLES) -> Tensor:
    """The empirical neural tangent kernel of the summed outputs of the first `samples`, [n, n] float64."""
    batch = forward.part(0, min(forward.samples, samples))
    parameters = [value for name, value in model.named_parameters() if name.rpartition(".")[2] == "weight"]
    with torch.enable_grad():
        summed = forward.by_sample(forward.run(model, batch).flatten(1), batch).sum(1)
    found = torch.zeros(len(summed), len(summed), dtype=torch.float64, device=summed.device)
    if not summed.requires_grad or not parameters:
        return found
    # One by one: the work is in convolutions, which several gradients at once do not make cheaper.
    rows: list[list[Tensor]] = [[] for _ in parameters]
    for one in summed:
        gradients = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
        for row, gradient in zip(rows, gradients, strict=True):
            if gradient is not None:
                row.append(gradient.flatten())
    for row in rows:
        if row:  # None for one sample is None for all: the graph is the same
            jacobian = torch.stack(row).double()
            found += jacobian @ jacobian.T
    return found


def _log_condition(matrix: Tensor) -> float:
    """The logarithm of the ratio of the extreme eigenvalues of a positive semi-definite matrix."""
    if not matrix.isfinite().all():
        return math.inf
    values = torch.linalg.eigvalsh(matrix)
    least, most = float(values[0]), float(values[-1])
    return math.log(most / least) if least > 0 else math.inf


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    named = weights(model)
    drawn = {id(weight) for weight in named.values()}
    with torch.no_grad():
        for weight in named.values():
            fresh = torch.empty(weight.shape, dtype=weight.dtype)
            weight.copy_(nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu", generator=generator))
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if id(getattr(module, "weight", None)) in drawn and isinstance(bias, Tensor):
                bias.zero_()
