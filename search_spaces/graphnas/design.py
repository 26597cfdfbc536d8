"""What a network of GraphNAS's cells is made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from search_spaces.operators.graph.parts import adds_nothing
from search_spaces.operators.operator import Operator


@dataclass(frozen=True, eq=False)
class Design:
    """A cell: what every node reads, 0 and 1 its inputs, 2 its first node, and applies; the network around it."""

    sources: tuple[int, ...]
    operators: tuple[Operator, ...]
    activation: str
    join: str
    hidden: int
    dropout: float
    encoding: Operator | None
    readout: Operator

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Which of its inputs the cell reads."""
        zipped = zip(self.sources, self.operators, strict=True)
        return tuple(sorted({source for source, one in zipped if source < 2 and not adds_nothing(one)}))

    @cached_property
    def joined(self) -> tuple[int, ...]:
        """The nodes that make up the answer; zeros need not be added up."""
        numbered = enumerate(self.operators, 2)
        added = tuple(number for number, one in numbered if self.join != "add" or not adds_nothing(one))
        return added or (2,)

    @property
    def width(self) -> int:
        """Of what a cell answers."""
        return self.hidden * (len(self.sources) if self.join == "concat" else 1)


def cells_of_use(reads: Collection[int], layers: int) -> frozenset[int]:
    """Those of `layers` cells, from 0, that lead to the answer: the last one, and what those that do read, each the one
    before the last (0) and the last one (1)."""
    found = {layers - 1}
    for number in range(layers - 1, 0, -1):
        if number in found:
            found |= {number - 2 + each for each in reads if number - 2 + each >= 0}
    return frozenset(found)
