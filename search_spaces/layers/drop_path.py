"""ScheduledDropPath (Zoph et al., CVPR 2018, section 4; DropPath: Larsson et al., ICLR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a path for whole samples, with a probability that rises linearly over the training.

    `probability = final_probability * progress`. What is kept is divided by the probability of keeping it, so the
    expectation is that of the path. `progress` goes from 0 at the first step to 1 at the last and is set by the
    fit loop (`nas_core.traits.Progressive`); it belongs to the training, not to the state of the network. In evaluation
    mode the path is left as it is. `(n, ...)` to the same shape. Raises ValueError for a final probability outside
    [0, 1).
    """

    def __init__(self, final_probability: float) -> None:
        super().__init__()
        if not 0 <= final_probability < 1:
            raise ValueError(f"the final probability of dropping a path is {final_probability}; it must be in [0, 1)")
        self.final_probability = final_probability
        self.progress = 0.0

    def set_progress(self, progress: float) -> None:
        self.progress = progress

    @property
    def probability(self) -> float:
        """The probability of dropping a path now."""
        return self.final_probability * self.progress

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.probability) if self.training else x

    def extra_repr(self) -> str:
        return f"final_probability={self.final_probability}"


def drop_path(x: Tensor, probability: float) -> Tensor:
    """The path, dropped for every sample with this probability, what is kept divided by that of keeping it."""
    if probability == 0:
        return x
    keep = 1 - probability
    kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
    return x * (kept.to(x.dtype) / keep)
