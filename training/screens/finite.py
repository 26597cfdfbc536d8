"""Networks whose answers or gradients are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from nas_core.batch import Batch


def finite(network: nn.Module, batch: Batch) -> str | None:
    """`not-finite` where outputs, or gradients of their mean square, are not finite."""
    import torch

    output = batch.scored(network(*batch.inputs))[0]
    if not bool(torch.isfinite(output).all()):
        return "not-finite: its outputs"
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters or not output.requires_grad:
        return None
    gradients = torch.autograd.grad(output.square().mean(), parameters, allow_unused=True)
    seen = [gradient for gradient in gradients if gradient is not None]
    return None if all(bool(torch.isfinite(gradient).all()) for gradient in seen) else "not-finite: its gradients"
