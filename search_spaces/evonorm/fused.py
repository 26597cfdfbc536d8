"""A graph as the calls that compute it fastest: what torch has as one function is one step.

    (x - mean_bhw(x)) / std_bhw(x)*v1 + v0      batch_norm
    (x - mean_group(x)) / std_group(x)*v1 + v0  group_norm, likewise of chw (one group) and hw (a group per channel)
    max(x, 0)                                   relu, whose gradient at 0 is 0, where that of a maximum is one half
    x*sigmoid(x)                                silu

for any value in the place of x, v0 or v1 in the place of v1 and v0, with or without them. What stands within a step is
needed nowhere else, or it is no step. What is normalised, and read by an activation alone, is one step with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.evonorm.graph import INITIAL, V0, V1, ZERO, Graph, Node
from search_spaces.evonorm.primitives import AGGREGATIONS, INDEX_SETS

NORMALISED = {f"normalised_{over}": over for over in INDEX_SETS}
"""Steps of one to three inputs: the value, a scale per channel, a shift."""
RELU, SILU = "relu", "silu"
READS = {RELU: 1, SILU: 2}
"""How often an activation reads its input."""


@dataclass(frozen=True, slots=True)
class Step:
    """The value of a place: an operation on earlier places, or what several come to."""

    place: int
    op: str
    inputs: tuple[int, ...]
    activation: str = ""  # of what is normalised


def steps(graph: Graph) -> tuple[Step, ...]:
    """The steps of a graph without dead nodes, in an order in which they can be computed; the last is the output."""
    reader = _Reader(graph)
    needed = {len(INITIAL) + len(graph.nodes) - 1}
    found: list[Step] = []
    for place in range(len(INITIAL) + len(graph.nodes) - 1, len(INITIAL) - 1, -1):
        if place in needed:
            step = reader.step(place)
            needed.update(step.inputs)
            found.append(step)
    return tuple(reversed(found))


class _Reader:
    """What is seen of a graph from a place backwards."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._uses = Counter(place for node in graph.nodes for place in node.inputs)

    def step(self, place: int) -> Step:
        node = self._node(place)
        assert node is not None
        if (scaled := self._affine(place)) is not None:
            return scaled
        if node.op == "max" and ZERO in node.inputs:
            return self._activated(place, RELU, *({*node.inputs} - {ZERO} or {ZERO}))
        if node.op == "mul":
            for value, gate in _orders(node):
                if self._is(gate, "sigmoid", value) and self._uses[gate] == 1:
                    return self._activated(place, SILU, value)
        return Step(place, node.op, node.inputs)

    def _activated(self, place: int, activation: str, value: int) -> Step:
        inner = self._affine(value)
        if inner is None or self._uses[value] > READS[activation]:
            return Step(place, activation, (value,))
        return Step(place, inner.op, inner.inputs, activation)

    def _affine(self, place: int) -> Step | None:
        """What is normalised, then perhaps scaled, then perhaps shifted."""
        if (plain := self._normalised(place)) is not None:
            return plain
        node = self._node(place)
        if node is None or node.op not in ("mul", "add"):
            return None
        for value, parameter in _orders(node):
            if parameter not in (V0, V1) or self._uses[value] > 1:
                continue
            inner = self._normalised(value) if node.op == "mul" else self._affine(value)
            if inner is not None and len(inner.inputs) == (1 if node.op == "mul" else 2):
                return Step(place, inner.op, (*inner.inputs, parameter))
        return None

    def _normalised(self, place: int) -> Step | None:
        """`(a - mean(a)) / std(a)`."""
        node = self._node(place)
        if node is None or node.second is None or node.op != "div":
            return None
        deviation = self._node(node.second)
        if deviation is None or not deviation.op.startswith("std_"):
            return None
        value, over = deviation.first, AGGREGATIONS[deviation.op][1]
        centred = self._node(node.first)
        if centred is None or centred.op != "add":
            return None
        for one, negative in _orders(centred):
            minus = self._node(negative)
            if one != value or minus is None or minus.op != "neg" or not self._is(minus.first, f"mean_{over}", value):
                continue
            within = (node.first, node.second, negative, minus.first)
            if all(self._uses[each] == 1 for each in within):
                return Step(place, f"normalised_{over}", (value,))
        return None

    def _node(self, place: int) -> Node | None:
        return self._graph.nodes[place - len(INITIAL)] if place >= len(INITIAL) else None

    def _is(self, place: int, op: str, value: int) -> bool:
        return self._node(place) == Node(op, value)


def _orders(node: Node) -> Iterator[tuple[int, int]]:
    """The inputs of a commutative operation, either way."""
    assert node.second is not None
    yield node.first, node.second
    yield node.second, node.first
