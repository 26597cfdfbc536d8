"""What a layer of Auto-GNN is made of."""

from __future__ import annotations

from dataclasses import dataclass

COMBINED = 128
"""Width of the MLP that combines a node with what came of its neighbours."""


@dataclass(frozen=True)
class Components:
    """`hidden` features of each of `heads` heads, and what is chosen beside."""

    hidden: int
    attention: str
    heads: int
    aggregate: str
    combine: str
    activation: str
