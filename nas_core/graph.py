"""Architecture graphs: labelled directed acyclic graphs for encodings, drawings and isomorphism."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class ArchGraph:
    """Nodes with an operation label each, and directed edges (from, to) by position.

    `skeleton` is true where every architecture of the space has these nodes and edges, and only the
    labels differ. `skips` are the labels of operations that hand their input on unchanged, `zeros` of those that
    hand on nothing. Raises ValueError for an edge to a node that does not exist, or a cycle.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    skeleton: bool = False
    skips: frozenset[str] = frozenset()
    zeros: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for edge in self.edges:
            if not all(0 <= end < len(self.nodes) for end in edge):
                raise ValueError(f"edge {edge} leaves the {len(self.nodes)} nodes of the graph")
        if len(self.order) != len(self.nodes):
            raise ValueError(f"the graph has a cycle: edges {self.edges}")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Nodes in topological order (Kahn's algorithm; smallest position first)."""
        waiting = [0] * len(self.nodes)
        for _, target in self.edges:
            waiting[target] += 1
        order: list[int] = []
        ready = [node for node, count in enumerate(waiting) if count == 0]
        while ready:
            node = min(ready)
            ready.remove(node)
            order.append(node)
            for source, target in self.edges:
                if source == node:
                    waiting[target] -= 1
                    if waiting[target] == 0:
                        ready.append(target)
        return tuple(order)

    def parents(self, node: int) -> tuple[int, ...]:
        return tuple(source for source, target in self.edges if target == node)

    def adjacency(self) -> numpy.ndarray:
        """Boolean matrix [nodes, nodes]; entry (i, j) is an edge from i to j."""
        import numpy

        matrix = numpy.zeros((len(self.nodes), len(self.nodes)), dtype=bool)
        for source, target in self.edges:
            matrix[source, target] = True
        return matrix

    def longest_path(self) -> int:
        """Number of edges on the longest path."""
        depth = [0] * len(self.nodes)
        for node in self.order:
            depth[node] = max((depth[parent] + 1 for parent in self.parents(node)), default=0)
        return max(depth, default=0)

    def wl_hash(self, rounds: int | None = None) -> str:
        """Weisfeiler-Lehman hash (Shervashidze et al. 2011) over in- and out-neighbours, 16 hex digits.

        Equal for isomorphic graphs; `rounds` defaults to the number of nodes.
        """
        labels = list(self.nodes)
        for _ in range(len(self.nodes) if rounds is None else rounds):
            into: list[list[str]] = [[] for _ in labels]
            out: list[list[str]] = [[] for _ in labels]
            for source, target in self.edges:
                into[target].append(labels[source])
                out[source].append(labels[target])
            labels = [
                _digest(repr((label, sorted(into[node]), sorted(out[node])))) for node, label in enumerate(labels)
            ]
        return _digest(repr(sorted(labels)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
