"""Networks that explode for weights near those that they start with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nas_core.batch import Batch
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from training.fit import Training


class Stability:
    """`stability` where gradient ascent on the weights finds gradients of the loss whose norm is beyond `bar`, or not
    finite, within `steps` (Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, section 3.2: 100
    steps, 1e8).

    The ascent is plain: weights + `rate` * d norm / d weights, on one batch, in training mode. The paper gives no
    rate. With .05 networks without normalisation pass the bar within a few steps, and known layers stay orders of
    magnitude below it; at .1 batch normalisation comes near it.

    Raises UsageError for settings that are none.
    """

    def __init__(self, steps: int = 100, bar: float = 1e8, rate: float = 0.05) -> None:
        if type(steps) is not int or steps < 1:
            raise UsageError(f"screen stability: steps={steps!r}; it takes a whole number of steps, 1 or more")
        for name, value in (("bar", bar), ("rate", rate)):
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UsageError(f"screen stability: {name}={value!r}; it takes a number above 0")
        self.steps, self.bar, self.rate = steps, float(bar), float(rate)

    def __call__(self, network: nn.Module, batch: Batch, training: Callable[[nn.Module], Training]) -> str | None:
        for step, norm in enumerate(self.norms(training(network), batch)):
            if not norm <= self.bar:  # also where it is not a number
                return f"stability: the gradient's norm is {norm:.3g} after {step} steps of ascent"
        return None

    def norms(self, begun: Training, batch: Batch) -> Iterator[float]:
        """The norm of the loss's gradient before each step of the ascent, and after the last one; the network of
        `begun` is changed in place."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        begun.model.train()
        weights = [weight for weight in begun.model.parameters() if weight.requires_grad]
        for step in range(self.steps + 1):
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                loss = begun.criterion(begun.answers(batch, begun.model)[0], batch)
                found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
                gradients = [gradient for gradient in found if gradient is not None]
                norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
                yield float(norm.detach())
                if step == self.steps or not norm.requires_grad:
                    return
                rising = torch.autograd.grad(norm, weights, allow_unused=True)
            with torch.no_grad():
                for weight, direction in zip(weights, rising, strict=True):
                    if direction is not None:
                        weight.add_(direction, alpha=self.rate)
