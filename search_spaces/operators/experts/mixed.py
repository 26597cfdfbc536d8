"""Experts of several kinds in one layer, each of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError, unknown
from search_spaces.layers.assigned import Assignment, Split, number_of
from search_spaces.operators.experts.gelu import Gelu
from search_spaces.operators.experts.glu import Glu
from search_spaces.operators.experts.kan import Kan
from search_spaces.operators.experts.linear import Linear
from search_spaces.operators.experts.pade import Pade
from search_spaces.operators.experts.rational import Rational
from search_spaces.operators.experts.stacked import StackedLinear

KINDS: Mapping[str, type[nn.Module]] = {
    "gelu": Gelu,
    "glu": Glu,
    "kan": Kan,
    "rational": Rational,
    "pade": Pade,
    "linear": Linear,
}


class Mixed(nn.Module):
    """Expert after expert of another kind: with 8 experts two are `gelu`, two `glu`, and one of each other kind; the
    experts of a kind are next to one another, in stacked tensors of their own.

    An expert costs what its kind does, so that active parameters and products are means over the experts. They cannot
    be merged: the mean of weights of several kinds is none of them. Raises UsageError for unknown kinds, or for one
    that is named twice.
    """

    def __init__(
        self, experts: int, features: int, hidden: int, outputs: int, kinds: Sequence[str] = tuple(KINDS)
    ) -> None:
        super().__init__()
        for kind in kinds:
            if kind not in KINDS:
                raise unknown("kind of mixed experts", str(kind), KINDS)
        if not kinds or len(set(kinds)) < len(kinds):
            raise UsageError(f"mixed: kinds are {', '.join(kinds) or 'none'}; name each once, and at least one")
        sizes = {kind: len(range(place, experts, len(kinds))) for place, kind in enumerate(kinds)}
        self.kinds = nn.ModuleDict(
            {kind: KINDS[kind](size, features, hidden, outputs) for kind, size in sizes.items() if size}
        )

    @property
    def sizes(self) -> list[int]:
        """How many experts there are of each kind."""
        return [number_of(kind) for kind in self.kinds.values()]

    @property
    def number(self) -> int:
        """How many experts there are."""
        return sum(self.sizes)

    def uncounted_macs(self, x: Tensor, assignment: Assignment) -> int:
        """What chosen experts multiply depends on the tokens. Counted is their mean; this is the rest of it."""
        if not isinstance(assignment, Split):
            return 0
        each = [
            products
            for kind, size in zip(self.kinds.values(), self.sizes, strict=True)
            for products in [_products(kind)] * size
        ]
        computed = sum(rows * products for rows, products in zip(assignment.counts, each, strict=True))
        return len(x) * sum(each) // len(each) - computed

    def forward(self, x: Tensor, assignment: Assignment) -> Tensor:
        parts = assignment.apart(x, self.sizes)
        return torch.cat([kind(*part) for kind, part in zip(self.kinds.values(), parts, strict=True)])


def _products(kind: nn.Module) -> int:
    """Of a row by one of these experts."""
    return sum(layer.weight[0].numel() for layer in kind.modules() if isinstance(layer, StackedLinear))
