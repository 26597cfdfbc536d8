"""Architecture graphs: labelled directed acyclic graphs for encodings, drawings and isomorphism."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from nas_core.deprecated import renamed

if TYPE_CHECKING:
    import numpy


@renamed(skeleton="fixed_topology")
@dataclass(frozen=True)
class ArchGraph:
    """Nodes with an operation label each, and directed edges (from, to) by position.

    `fixed_topology` is true where every architecture of the space has these nodes and edges, and only the
    labels differ. `skips` are the labels of operations that hand their input on unchanged, `zeros` of those that
    hand on nothing. Raises ValueError for an edge to a node that does not exist, or a cycle.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    fixed_topology: bool = False
    skips: frozenset[str] = frozenset()
    zeros: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _ = self.order

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Nodes in topological order (Kahn's algorithm; smallest position first)."""
        return _topological(len(self.nodes), self.edges)

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


@lru_cache(maxsize=1024)  # the graphs of a space mostly differ in their labels alone
def _topological(nodes: int, edges: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Raises ValueError as `ArchGraph` does."""
    waiting = [0] * nodes
    for edge in edges:
        if not all(0 <= end < nodes for end in edge):
            raise ValueError(f"edge {edge} leaves the {nodes} nodes of the graph")
        waiting[edge[1]] += 1
    order: list[int] = []
    ready = [node for node, count in enumerate(waiting) if count == 0]
    while ready:
        node = min(ready)
        ready.remove(node)
        order.append(node)
        for source, target in edges:
            if source == node:
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
    if len(order) != nodes:
        raise ValueError(f"the graph has a cycle: edges {edges}")
    return tuple(order)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
