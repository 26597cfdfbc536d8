"""LCM: a learned commutative operation in a tree."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn


class LearnedMonoid(nn.Module):
    """Learnable commutative monoid (Ong and Velickovic 2022, section 3): values are projected, then combined two by two
    along a balanced binary tree by `(GRU(a, b) + GRU(b, a)) / 2`, which commutes. The tree has `log2` levels of the
    largest number of values; one that is left over moves on to the next level.

    Unlike in PyTorch Geometric's `LCMAggregation` nothing is padded, so that the answer does not depend on how many
    values others have; where all have equally many, both are the same.
    """

    ordered = "because combining is not associative: the answer depends on the order of the values"
    why_not_exportable = "because its tree is as deep as the values of the graph it is called with demand"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width
        self.project = nn.Linear(width, width)
        self.combine = nn.GRUCell(width, width)

    def forward(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        """Raises ValueError where the values are not sorted by `index`."""
        if bool((index[1:] < index[:-1]).any()):
            raise ValueError("values are not sorted by their index")
        states = torch.relu(self.project(values))
        counts = torch.bincount(index, minlength=count)
        while states.size(0) > 1 and int(counts.max()) > 1:
            place = torch.arange(index.numel(), device=index.device) - (counts.cumsum(0) - counts)[index]
            first = place % 2 == 0
            paired = first & (place + 1 < counts[index])
            left = paired.nonzero().view(-1)
            one, other = states[left], states[left + 1]
            both = (self.combine(one, other) + self.combine(other, one)) / 2
            states = states.index_copy(0, left, both)[first]
            index, counts = index[first], (counts + 1) // 2
        return states.new_zeros(count, self.out_features).index_copy(0, index, states)

    def macs(self, nodes: int, edges: int) -> int:
        """Where every node has neighbours: a projection per value, and two GRU cells for every value but the last."""
        return (edges + 12 * max(0, edges - nodes)) * self.out_features**2

    def signature(self) -> Hashable:
        return "lcm", self.out_features
