"""A linear map per expert, and how many hidden units equal parameters allow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search_spaces.layers.assigned import Assignment

MULTIPLE = 8  # of hidden units: what rows of grouped products are aligned to, in bfloat16 too


class StackedLinear(nn.Module):
    """`[..., inputs]` to `[..., outputs]`, each row by its expert; matrices start as those of `nn.Linear`."""

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(experts, outputs).uniform_(-bound, bound)) if bias else None

    def extra_repr(self) -> str:
        experts, outputs, inputs = self.weight.shape
        return f"{inputs}, {outputs}, experts={experts}, bias={self.bias is not None}"

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        return assignment.linear(x, *self.matrices(x.dtype))

    def matrices(self, kind: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weights and biases in this type."""
        return self.weight.to(kind), None if self.bias is None else self.bias.to(kind)


def units(hidden: int, share: float) -> int:
    """`share` of the hidden units, at least one; a multiple of 8 where there are so many."""
    exact = hidden * share
    if exact < MULTIPLE:
        return max(1, round(exact))
    return MULTIPLE * round(exact / MULTIPLE)
