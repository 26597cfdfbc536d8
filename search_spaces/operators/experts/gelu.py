"""The usual feed-forward layer: two linear maps with a GELU between them."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.assigned import Assignment
from search_spaces.operators.experts.stacked import StackedLinear


class Gelu(nn.Module):
    """`W2 gelu(W1 x)`, with biases."""

    def __init__(self, experts: int, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.up = StackedLinear(experts, features, hidden)
        self.down = StackedLinear(experts, hidden, outputs)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        return assignment.mlp(x, self.up.matrices(x.dtype), self.down.matrices(x.dtype))
