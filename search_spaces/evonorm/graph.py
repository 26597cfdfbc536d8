"""A layer as plain data: the live nodes of an architecture, and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.evonorm.primitives import BINARY

INITIAL = ("x", "0", "v0", "v1")
X, ZERO, V0, V1 = range(len(INITIAL))


@dataclass(frozen=True, slots=True)
class Node:
    """An operation on one or two earlier values, by their places; `second` is None for unary operations."""

    op: str
    first: int
    second: int | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)


@dataclass(frozen=True)
class Graph:
    """Nodes in order; places 0 to 3 are those of `INITIAL`, node i has place 4 + i. The last node is the output."""

    nodes: tuple[Node, ...]

    @property
    def used(self) -> frozenset[int]:
        """The places that the output depends on, its own among them."""
        found = {len(INITIAL) + len(self.nodes) - 1}
        for place in range(len(INITIAL) + len(self.nodes) - 1, len(INITIAL) - 1, -1):
            if place in found:
                found.update(self.nodes[place - len(INITIAL)].inputs)
        return frozenset(found)

    def live(self) -> Graph:
        """Without the nodes that the output does not depend on."""
        used = self.used
        places = {place: place for place in range(len(INITIAL))}
        nodes: list[Node] = []
        for place, node in enumerate(self.nodes, len(INITIAL)):
            if place in used:
                places[place] = len(INITIAL) + len(nodes)
                nodes.append(Node(node.op, places[node.first], None if node.second is None else places[node.second]))
        return Graph(tuple(nodes))


def graph_of(rows: Sequence[tuple[str, int, int]]) -> Graph:
    """From operations with two inputs each; the second one of a unary operation is not read."""
    return Graph(tuple(Node(op, first, second if op in BINARY else None) for op, first, second in rows))


def evaluate(graph: Graph, initial: Mapping[int, Any], apply: Callable[[int, str, Any, Any], Any]) -> Any:
    """The output of a graph without dead nodes; `apply(node, op, x, y)` gets the node's number."""
    values = dict(initial)
    for number, node in enumerate(graph.nodes):
        second = None if node.second is None else values[node.second]
        values[len(INITIAL) + number] = apply(number, node.op, values[node.first], second)
    return values[len(INITIAL) + len(graph.nodes) - 1]
