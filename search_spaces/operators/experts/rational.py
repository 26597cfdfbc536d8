"""An MLP whose activation is a rational function with coefficients of each expert's own (Molina, Schramowski and
Kersting, "Pade Activation Units", ICLR 2020)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from search_spaces.layers.assigned import Assignment
from search_spaces.layers.rational import fitted, safe_ratio
from search_spaces.operators.experts.stacked import StackedLinear

DEGREES = (5, 4)


class Rational(nn.Module):
    """`W2 R(W1 x)`, with biases; R is of degrees 5/4, with a denominator that has no zero (version A of
    `search_spaces.layers.rational`), and starts as GELU. It is computed in the type of its coefficients, which do not
    decay."""

    def __init__(self, experts: int, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.up = StackedLinear(experts, features, hidden)
        self.down = StackedLinear(experts, hidden, outputs)
        numerator, denominator = fitted(DEGREES, "A", "gelu")
        self.numerator = nn.Parameter(torch.tensor(numerator).repeat(experts, 1))
        self.denominator = nn.Parameter(torch.tensor(denominator).repeat(experts, 1))

    def no_decay(self) -> Iterable[nn.Parameter]:
        return (self.numerator, self.denominator)

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        hidden: Tensor = self.up(x, assignment)
        above, below = (assignment.each(each).movedim(-1, 0) for each in (self.numerator, self.denominator))
        bent = safe_ratio(above.unsqueeze(-1), below.unsqueeze(-1), hidden.to(above.dtype))
        answer: Tensor = self.down(bent.to(hidden.dtype), assignment)
        return answer
