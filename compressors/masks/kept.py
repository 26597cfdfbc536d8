"""The training of a masked network: what is zero when it begins is zero after every step.

The gradient of a masked weight is 0, so that neither momentum nor the norm that gradients are clipped by knows of it,
and after every step of the optimiser it is set to 0 again, whatever else has moved it. The mask is read off the network
that the training begins with, which is the same where it is resumed; a weight that happens to be 0 there stays so too.
Averages of the weights (`ema`) and the weights of the best epoch have the same zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compressors.masks.density import prunable
from training.regimes.regime import Regime

if TYPE_CHECKING:
    from nas_core.batch import Batch
    from training.compute import Forward


class Kept(Regime):
    """Zeros of the prunable weights stay."""

    def __init__(self) -> None:
        self._zeros: list[tuple[nn.Parameter, Tensor]] = []
        self._hooks: list[RemovableHandle] = []

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        masked = ((weight, weight.detach() == 0) for weight in prunable(network).values())
        self._zeros = [(weight, zeros) for weight, zeros in masked if bool(zeros.any())]
        self._hooks = [
            weight.register_hook(lambda gradient, zeros=zeros: gradient.masked_fill(zeros, 0))
            for weight, zeros in self._zeros
            if weight.requires_grad
        ]

    def after_step(self) -> None:
        for weight, zeros in self._zeros:
            weight.detach().masked_fill_(zeros, 0)

    def end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
