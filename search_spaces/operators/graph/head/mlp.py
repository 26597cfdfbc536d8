"""Links by an MLP of both ends."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch


class MlpHead(nn.Module):
    """Both ends, concatenated, through two linear maps with a ReLU between them (You et al. 2020, "concat" decoder)."""

    pairs = True

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, pairs: Tensor, graph: GraphBatch | None = None) -> Tensor:
        both = torch.cat([x[pairs[0]], x[pairs[1]]], 1)
        answer: Tensor = self.last(torch.relu(self.hidden(both)))
        return answer

    def macs(self, nodes: int, edges: int) -> int:
        """`edges` are the pairs that are asked for."""
        return edges * (self.hidden.weight.numel() + self.last.weight.numel())

    def signature(self) -> Hashable:
        return "mlp", tuple(self.last.weight.shape)
