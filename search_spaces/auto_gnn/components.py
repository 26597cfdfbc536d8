"""What a layer of Auto-GNN or GraphNAS is made of."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from search_spaces.operators.operator import Operator

COMBINED = 128
"""Width of the MLP that combines a node with what came of its neighbours."""
POOLED = 128
"""Width between the two linear maps of a message."""


@dataclass(frozen=True)
class Components:
    """`hidden` features of each of `heads` heads, and what is chosen beside. `operator`: a node operator in the
    place of attention and aggregation. `pooled`: every message goes through two linear maps before it is aggregated.
    `alike` says what of it has to be the same in a layer, beside its shapes, for its weights to mean the same."""

    hidden: int
    attention: str
    heads: int
    aggregate: Operator
    combine: str
    activation: str
    pooled: bool
    alike: Hashable
    operator: Operator | None = None
