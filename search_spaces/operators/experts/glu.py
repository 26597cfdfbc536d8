"""Gated linear units (Shazeer, "GLU Variants Improve Transformer", 2020, arXiv 2002.05202, SwiGLU)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Assignment
from search_spaces.operators.experts.stacked import StackedLinear, units


class Glu(nn.Module):
    """`W3 (silu(W1 x) * W2 x)`, without biases, of two thirds of the hidden units (there, section 3)."""

    def __init__(self, experts: int, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        own = units(hidden, 2 / 3)
        self.gate = StackedLinear(experts, features, own, bias=False)
        self.up = StackedLinear(experts, features, own, bias=False)
        self.down = StackedLinear(experts, own, outputs, bias=False)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        inner = functional.silu(self.gate(x, assignment)) * self.up(x, assignment)
        answer: Tensor = self.down(inner, assignment)
        return answer
