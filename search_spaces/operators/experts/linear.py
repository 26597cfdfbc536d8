"""One linear map: the only expert of which merging the weights is mixing the answers."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.assigned import Assignment
from search_spaces.operators.experts.stacked import StackedLinear


class Linear(nn.Module):
    """`W x + b`. It has no hidden units, whatever `hidden` is."""

    def __init__(self, experts: int, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.map = StackedLinear(experts, features, outputs)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        answer: Tensor = self.map(x, assignment)
        return answer
