"""What may stand in the place of an operation on states of nodes, called with `(state, other, graph)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class Nothing(nn.Module):
    """Adds nothing to a state."""

    zero = True

    def forward(self, state: Tensor, other: Tensor, graph: Tensor | GraphBatch) -> None:
        return None

    def zeros(self, state: Tensor, other: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return torch.zeros_like(state)


class Same(nn.Module):
    """Hands a state on."""

    skip = True

    def forward(self, state: Tensor, other: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        return state
