"""The orthonormality regulariser for deep plain networks (Xie, Xiong and Pu, CVPR 2017, section 3.2).

A network without shortcuts passes the norm of its gradients on where the filters of each layer are orthonormal. To the
loss is added `weight / 2` times the sum over the layers of `|W^T W - I|_F^2`, with W [fan-in, filters] of a convolution
or a linear map.

Deviations: the paper starts from orthonormal filters, here the network's own initialisation is kept; its modulation of
the gradients in the backward pass is not built, and the recipe's weight decay stays (there the term takes its place). A
layer with more filters than inputs cannot have orthonormal filters: there the rows of W are meant. Each group of a
grouped convolution is a layer of its own. The last linear map is left out: its scale is that of the logits. The default
weight is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from training.regimes.regime import Regime, Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas_core.batch import Batch
    from training.compute import Forward
    from training.teacher import Teacher


class Orthonormality(Settings):
    """Filters of each layer that are orthonormal to one another."""

    weight: float = Field(default=1e-3, gt=0, le=100, allow_inf_nan=False, description="of the term in the loss")

    def regime(self, teacher: Teacher | None) -> Regime:
        return OrthonormalFilters(self.weight)


class OrthonormalFilters(Regime):
    """The term of the loss."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._layers: list[nn.Module] = []

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        self._layers = list(regularised(network))

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        for layer in self._layers:
            loss = loss + self._weight / 2 * deviation(layer)
        return loss


def regularised(network: nn.Module) -> Iterator[nn.Module]:
    """The convolutions and linear maps of a network but for its last linear map."""
    from torch import nn

    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return (layer for layer in layers if layer is not (linear[-1] if linear else None))


def deviation(layer: nn.Module) -> Tensor:
    """`|W^T W - I|_F^2` of a layer, summed over its groups."""
    import torch

    groups = getattr(layer, "groups", 1)
    filters = layer.weight.flatten(1).unflatten(0, (groups, -1)).float()  # [groups, filters, fan-in]
    if filters.shape[1] > filters.shape[2]:
        filters = filters.transpose(1, 2)
    gram = filters @ filters.transpose(1, 2)
    return (gram - torch.eye(gram.shape[1], device=gram.device)).square().sum()
