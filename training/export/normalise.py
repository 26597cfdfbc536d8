"""A network together with the normalisation that its training did before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.inputs import ImageInputs, Inputs
from training.tasks import find


class NormalisedImages(nn.Module):
    """Takes images [n, c, h, w] from 0 to 1: `network((images - mean) / deviation)`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, inputs: ImageInputs) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.tensor(getattr(inputs, name)).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.network((image - self.mean) / self.deviation)
        return answer


class NormalisedAsked(NormalisedImages):
    """The same with the number of the task [n] that each image is asked for."""

    def forward(self, image: Tensor, task: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.network((image - self.mean) / self.deviation, task)
        return answer


class NormalisedRows(nn.Module):
    """Takes a graph's features as they are: each row is divided by the sum of its absolute values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        answer: Tensor = self.network(_by_rows(x), edge_index)
        return answer


class NormalisedGraphs(NormalisedRows):
    """The same of many graphs."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.network(_by_rows(x), edge_index, counts)
        return answer


class NormalisedAttributed(NormalisedRows):
    """The same of many graphs whose edges have features, which stay as they are."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.network(_by_rows(x), edge_index, edge_attr, counts)
        return answer


class NormalisedPairs(NormalisedRows):
    """The same of a graph and pairs of its nodes."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.network(_by_rows(x), edge_index, pairs)
        return answer


class NormalisedAttributedPairs(NormalisedRows):
    """The same where edges have features, which stay as they are."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.network(_by_rows(x), edge_index, edge_attr, pairs)
        return answer


def _by_rows(x: Tensor) -> Tensor:
    return x / x.abs().sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def normalised(network: nn.Module, inputs: Inputs | None) -> nn.Module:
    """The network for inputs as `training.infer` reads them; the network itself where nothing is to be normalised."""
    return network if inputs is None else find(inputs.kind).normalised(network, inputs)
