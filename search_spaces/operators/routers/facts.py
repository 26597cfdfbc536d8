"""What is known of a router without importing it: what a network must give it, and what is left to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas_core.choice import Value

CONDITION, LATER, SEVERAL = NEEDS = ("a task or attributes of a sample", "later tokens", "several tokens of a sample")
"""What networks differ in: whether they know of a sample more than its tokens, whether a token may depend on later ones
(not in causal networks), and whether a sample has more than one (not a row of a table)."""

CHOSEN, ONE, ALL = COMPUTED = ("chosen", "one", "all")


@dataclass(frozen=True)
class Facts:
    """`needs`: of `NEEDS`, what the network that it stands in must give. `computes`: the chosen experts of a token, one
    that is merged of all, or all. `most`: chosen experts at most; None: all there are. `drops`: whether a capacity can
    bind, because tokens choose. `options`: keywords of the class that a space may choose; `alone`: those that are left
    of some where one expert is active. `by_task`: whether the task of a sample decides alone, so that the network of
    one task is a part of the whole."""

    needs: frozenset[str] = frozenset()
    computes: str = CHOSEN
    most: int | None = None
    drops: bool = True
    by_task: bool = False
    options: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    alone: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def missing(self, given: frozenset[str]) -> str | None:
        """The first of its needs that a network does not give."""
        return next((need for need in NEEDS if need in self.needs - given), None)

    def active(self, experts: int, chosen: int) -> int:
        """How many experts' parameters a token passes."""
        return {CHOSEN: chosen, ONE: 1, ALL: experts}[self.computes]
