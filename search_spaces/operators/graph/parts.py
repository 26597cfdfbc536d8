"""What a space of graph networks is told by names: operators of the catalogue, or of one's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nas_core.errors import UsageError
from nas_core.space import SearchSpace
from nas_core.task import GRAPH_KINDS, WHOLE_GRAPH_KINDS
from search_spaces.operators.graph import AGGREGATOR, ENCODING, GRAPH, READOUT, REWIRING
from search_spaces.operators.operator import Operator, Role


@dataclass(frozen=True)
class Parts:
    """Operators of each role by their labels, in the order in which they were named."""

    operators: Mapping[str, Operator]
    aggregators: Mapping[str, Operator]
    encodings: Mapping[str, Operator]
    readouts: Mapping[str, Operator]
    rewirings: Mapping[str, Operator]

    def findings(self) -> Iterator[str]:
        """What is wrong with those that are a user's own (`nas_core.space.HasFindings`)."""
        from search_spaces.operators.graph.suite import check

        for role in (self.operators, self.aggregators, self.encodings, self.readouts, self.rewirings):
            for one in role.values():
                if one.own:
                    yield from check(one)


def parts(
    operators: Sequence[str] = (),
    aggregators: Sequence[str] = (),
    encodings: Sequence[str] = (),
    readouts: Sequence[str] = (),
    rewirings: Sequence[str] = (),
) -> Parts:
    """Names of the catalogue, or `my_ops.py:Mine`, resolved: `parts(operators=("gcn", "my_ops.py:Mine"))`.

    A role that is not named, or named with nothing, is empty. Raises UsageError for an unknown name, with the nearest
    one, and for what cannot be one of its role; NotFoundError for a missing file or class.
    """

    def found(role: Role, names: Sequence[str]) -> Mapping[str, Operator]:
        if isinstance(names, list | tuple) and not names:
            return {}
        return {each.label: each for each in role.operators(names)}

    return Parts(
        found(GRAPH, operators),
        found(AGGREGATOR, aggregators),
        found(ENCODING, encodings),
        found(READOUT, readouts),
        found(REWIRING, rewirings),
    )


def for_whole_graphs_alone(space: SearchSpace) -> None:
    """What a space is for that was told `readouts=`, which are of use to whole graphs alone."""
    why = "readouts make one answer of a whole graph, and answers here are for nodes or pairs: leave readouts= out"
    space.tasks, space.refused = WHOLE_GRAPH_KINDS, dict.fromkeys(GRAPH_KINDS - WHOLE_GRAPH_KINDS, why)


def adds_nothing(operator: Operator) -> bool:
    """Whether it answers zeros; of the catalogue's `zero` alone does, which is known without importing."""
    return operator.zero if operator.own else operator.name == "zero"


def layers(space: str, named: Mapping[str, Operator], taken: Collection[str]) -> Mapping[str, Operator]:
    """Node operators that a layer of a space may be, beside what is `taken` by name already.

    Raises UsageError for one that adds nothing or hands its input on, and for a name that is taken.
    """
    for label, one in named.items():
        if adds_nothing(one) or (one.skip if one.own else one.name == "skip"):
            what = "adds nothing" if adds_nothing(one) else "hands its input on"
            raise UsageError(f"{space} has no place for '{label}', which {what}")
    check_names(space, named, taken)
    return named


def check_names(space: str, named: Mapping[str, Operator], taken: Collection[str]) -> None:
    """Raises UsageError for an operator, or aggregator, that is called what something else of the space is."""
    for label in named:
        if label in taken:
            raise UsageError(f"{space} has '{label}' already; rename that one of yours, or leave out the other")


def suffix(said: Sequence[Iterable[str]], usual: Sequence[Sequence[str]]) -> str:
    """What a space's name ends in where it has other parts than the usual ones, by labels: several such spaces may be
    in one database."""
    labels = [list(role) for role in said]
    if labels == [list(role) for role in usual]:
        return ""
    return f"-{hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:8]}"


def check_edges(operators: Mapping[str, Operator], edge_features: int | None, example: str) -> None:
    """Raises UsageError where edges have features and no operator reads them; `example` is a space where one does."""
    if edge_features is not None and not any(getattr(one.kind, "takes_edges", False) for one in operators.values()):
        raise UsageError(
            f"none of {', '.join(operators)} reads edge_attr, features of edges; name one that does, {example}, or "
            "leave them out"
        )
