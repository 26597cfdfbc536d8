"""Which relations a network of ARGNP has any use for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def relations_of_use(
    nodes: Mapping[int, Sequence[int]], relations: Mapping[int, Sequence[int]], every: bool
) -> frozenset[int]:
    """The vertices whose states of relations are of any use: all of them where relations are answered from (`every`),
    or else those that lead to a state of nodes. By vertex whose relations its nodes depend on, and its relations."""
    if every:
        return frozenset({0, 1, *nodes})
    found: set[int] = set()
    for number in sorted(nodes, reverse=True):
        found.update(nodes[number])
        found.update(relations[number] if number in found else ())
    return frozenset(found)
