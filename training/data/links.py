"""Which edges of a graph are held out, and pairs of nodes that no edge joins: arithmetic on the numbers of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PairNumbers:
    """A number from 0 to `count` - 1 for every pair of two of `nodes` nodes: ordered ones (source, target) where edges
    are `directed`, else unordered ones, of which the smaller node is named first."""

    nodes: int
    directed: bool = False

    @property
    def count(self) -> int:
        pairs = self.nodes * (self.nodes - 1)
        return pairs if self.directed else pairs // 2

    def of(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers [p] of pairs [2, p], of which none is a node twice."""
        source, target = pairs
        if self.directed:
            return source * (self.nodes - 1) + target - (target > source)
        # A pair is a node and how far around the circle of all nodes the other one is, at most half of it.
        way = (target - source) % self.nodes
        start = np.where(2 * way > self.nodes, target, source)
        way = np.minimum(way, self.nodes - way)
        start = np.where(2 * way == self.nodes, np.minimum(source, target), start)
        return (way - 1) * self.nodes + start

    def pairs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs [2, p] of these numbers [p]."""
        if self.directed:
            source, target = np.divmod(numbers, max(self.nodes - 1, 1))
            return np.stack([source, target + (target >= source)])
        way, source = np.divmod(numbers, max(self.nodes, 1))
        return np.sort(np.stack([source, (source + way + 1) % max(self.nodes, 1)]), axis=0)


@dataclass(frozen=True)
class NonEdges:
    """The numbers from 0 to `count` - 1 that are not among the `edges` [e], which rise: each is drawn alike."""

    edges: NDArray[np.int64]
    count: int

    @property
    def free(self) -> int:
        """How many there are."""
        return self.count - len(self.edges)

    def draw(self, many: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """So many of them; one may occur again."""
        return self._at((rng.random(many) * self.free).astype(np.int64))

    def choose(self, many: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """So many different ones, or all."""
        if 2 * many >= self.free:
            return self._at(np.argsort(rng.random(self.free), kind="stable")[:many])
        found = np.zeros(0, dtype=np.int64)
        while len(found) < many:
            more = (rng.random(2 * (many - len(found)) + 8) * self.free).astype(np.int64)
            found = np.concatenate([found, more])
            found = found[np.sort(np.unique(found, return_index=True)[1])]
        return self._at(found[:many])

    def _at(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers that so many free ones are below: as many edges are, as have at most so many free ones below."""
        below = self.edges - np.arange(len(self.edges))
        return ranks + np.searchsorted(below, ranks, side="right")


def without_loops(edge_index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The edges [2, e] between two nodes."""
    return edge_index[:, edge_index[0] != edge_index[1]]


def is_directed(edge_index: NDArray[np.int64], nodes: int) -> bool:
    """Whether an edge has no way back."""
    codes = np.unique(PairNumbers(nodes, directed=True).of(without_loops(edge_index)))
    back = np.unique(PairNumbers(nodes, directed=True).of(without_loops(edge_index[::-1])))
    return not np.array_equal(codes, back)


def kept(edge_index: NDArray[np.int64], nodes: int, held_out: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[e]: which of the edges [2, e] are, in either direction, none of the unordered pairs numbered `held_out`."""
    found = np.ones(edge_index.shape[1], dtype=bool)
    between = edge_index[0] != edge_index[1]
    found[between] = ~np.isin(PairNumbers(nodes).of(edge_index[:, between]), held_out)
    return found


def first_shared(numbers: NDArray[np.int64], others: NDArray[np.int64], nodes: int) -> Any:
    """An unordered pair that both lists of numbers name, as (node, node); None where there is none."""
    shared = np.intersect1d(numbers, others)
    return tuple(PairNumbers(nodes).pairs(shared[:1])[:, 0].tolist()) if len(shared) else None
