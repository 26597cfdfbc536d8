"""What operations of cells share: they read a node as `Features`, so that what several need is computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features


class Operation(nn.Module):
    """An operation on a node `[b, i, h, w]`, to `[b, o, ceil(h / stride), ceil(w / stride)]`: its `response`. None: it
    adds nothing."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def response(self, node: Features) -> Tensor | None:
        """The result before it is normalised."""
        raise NotImplementedError

    def forward(self, node: Features) -> Tensor | None:
        return self.response(node)

    def zeros(self, node: Features) -> Tensor:
        """What an operation that adds nothing stands for."""
        return torch.zeros_like(node.value[:, :, :: self.stride, :: self.stride])


class Normalised(Operation):
    """An operation whose response is normalised, where there is a norm, and may be dropped as a path."""

    def __init__(self, stride: int = 1, norm: nn.BatchNorm2d | None = None, drop_path: DropPath | None = None) -> None:
        super().__init__(stride)
        self.norm, self.drop_path = norm, drop_path

    def forward(self, node: Features) -> Tensor | None:
        x = self.response(node)
        return self._dropped(x if x is None or self.norm is None else self.norm(x))

    def weighted(self, weight: Tensor, node: Features) -> Tensor | None:
        """`weight * self(node)`, where the normalisation scales by the weight: no pass over the map of its own."""
        x = self.response(node)
        if x is not None:
            x = weight * x if self.norm is None else scaled_norm(self.norm, x, weight)
        return self._dropped(x)

    def _dropped(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.drop_path is None else self.drop_path(x)


def rectified(node: Features) -> Tensor:
    """ReLU of a node, zeros for an empty one."""
    return node.value if node.relu is None else node.relu


def scaled_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """`weight * norm(x)` for a scalar weight. Counts the batch as `norm` does."""
    if norm.training and norm.track_running_stats:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    # Dense, because torch's backward pass in channels_last reads past the end of an expanded one.
    gain = weight.repeat(norm.num_features) if norm.weight is None else weight * norm.weight
    return functional.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        gain,
        None if norm.bias is None else weight * norm.bias,
        norm.training,
        norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked or 1),
        norm.eps,
    )
