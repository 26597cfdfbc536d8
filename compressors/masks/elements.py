"""What the loss says of single weights: gradients, and products of the Hessian with a vector by double backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas_core.batch import Batch, Data
from training.compute import answers_alone
from training.outputs import logits_of

Vector = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""From the weights and their gradients, both without a graph, the vector that the Hessian is multiplied with."""


def loss_of(network: nn.Module, batch: Batch, data: Data, temperature: float = 1.0) -> Tensor:
    """The mean loss of a batch, of logits that are divided by a temperature."""
    logits, _ = logits_of(network(*batch.inputs), len(batch.inputs[0]), data.task)
    return data.loss(logits / temperature, batch)


def apart(network: nn.Module, *, train: bool) -> nn.Module:
    """A copy of the network, so that its statistics stay: in evaluation mode, or in training mode (normalisations by
    the statistics of the batch) without dropout."""
    found = answers_alone(copy.deepcopy(network)).train(train)
    for module in found.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    return found


def gradients(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """dL/dtheta by name, 0 where the loss does not reach."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def hessian_product(loss: Tensor, weights: Mapping[str, Tensor], vector: Vector) -> dict[str, Tensor]:
    """H v by name, where H is the Hessian of the loss with respect to these weights together. The loss must have been
    computed `twice_differentiable`."""
    tensors = list(weights.values())
    first = torch.autograd.grad(loss, tensors, create_graph=True, allow_unused=True, materialize_grads=True)
    along = vector([tensor.detach() for tensor in tensors], [gradient.detach() for gradient in first])
    live = [(gradient, one) for gradient, one in zip(first, along, strict=True) if gradient.requires_grad]
    if not live:
        return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    found = torch.autograd.grad(
        [gradient for gradient, _ in live],
        tensors,
        [one for _, one in live],
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(weights, found, strict=True))


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Fused attention and cuDNN's recurrent layers have no second derivative: they are computed otherwise."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield
