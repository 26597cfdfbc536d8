"""Derivatives of the loss of a trained network on a few batches of what it was trained on.

The network is in evaluation mode: normalisations use their running statistics and nothing is dropped, so that the loss
is a function of the weights alone. The batches are those of a training pass, with the recipe's augmentation and loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from compressors.compressor import Subject
from compressors.importance.norms import cheap_norms
from nas_core.batch import Batch
from nas_core.errors import TrialError
from nas_core.seeds import derive
from training.compute import Extras
from training.loss import Criterion
from training.outputs import logits_of

BATCHES = 20
"""How many batches scores are means over by default; all there are, where those are fewer."""


def drawn(subject: Subject, round: int, count: int) -> Iterator[Batch]:
    """The first `count` batches of a training pass that is drawn from (seed, round)."""
    return islice(subject.data.batches("train", 0, derive(subject.seed, round, "scores")), count)


class Loss:
    """The loss that a network was trained with, as a function of a batch: the mean over its samples, float32 or
    wider."""

    def __init__(self, network: nn.Module, subject: Subject) -> None:
        self._network, self._task = network, subject.task
        self._extras = Extras(network)
        self._criterion = subject.data.loss if subject.recipe is None else Criterion(subject.recipe, subject.data)

    def __call__(self, batch: Batch) -> Tensor:
        return self.of(self.output(batch), batch)

    def output(self, batch: Batch) -> Tensor:
        """The logits [samples, outputs]."""
        answer = self._network(*batch.inputs)
        self._extras.drop()
        return logits_of(answer, self._task.rows(batch.inputs), self._task)[0]

    def of(self, output: Tensor, batch: Batch) -> Tensor:
        """Raises TrialError `nan-loss`."""
        loss = self._criterion(output, batch)
        if not torch.isfinite(loss):
            raise TrialError("nan-loss", f"the loss of the network before compression is {loss.item()}; train it anew")
        return loss


@contextmanager
def differentiable(network: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """The floating parameters by name, all of which take part in derivatives, also in second ones: fused attention and
    fused recurrent layers, which have none, are not used. The network is in evaluation mode."""
    parameters = {name: one for name, one in network.named_parameters() if one.is_floating_point()}
    before = [(one, one.requires_grad) for one in parameters.values()]
    training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for one in parameters.values():
            one.requires_grad_()
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(cheap_norms())
            # A recurrent layer in evaluation mode has no derivative at all in cuDNN.
            stack.enter_context(torch.backends.cudnn.flags(enabled=not _recurrent(network)))
            yield parameters
    finally:
        for one, required in before:
            one.requires_grad_(required)
        for module, mode in training:
            module.training = mode


def _recurrent(network: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in network.modules())


def gradients(loss: Tensor, parameters: Mapping[str, Tensor], second: bool = False) -> dict[str, Tensor]:
    """g = dL/dtheta by name, zeros where the loss does not depend on a parameter; `second`: to be differentiated."""
    found = torch.autograd.grad(loss, list(parameters.values()), create_graph=second, allow_unused=True)
    return _named(parameters, found)


def hessian_product(
    loss: Tensor, parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """H v by name, for the Hessian H of the loss in all parameters and v = `direction`: the gradient of g'v, by double
    backward."""
    first = gradients(loss, parameters, second=True)
    live = [name for name, gradient in first.items() if gradient.requires_grad]
    if not live:
        return {name: torch.zeros_like(one) for name, one in parameters.items()}
    found = torch.autograd.grad(
        [first[name] for name in live],
        list(parameters.values()),
        [direction[name] for name in live],
        allow_unused=True,
    )
    return _named(parameters, found)


def _named(parameters: Mapping[str, Tensor], found: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(one) if value is None else value
        for (name, one), value in zip(parameters.items(), found, strict=True)
    }
