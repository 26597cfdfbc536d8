"""Three small spaces that have, between them, every trait by which a strategy can tell one space from another.

A strategy sees of a space its choices, conditions, `allowed`, identity, graph and variation, nothing else. So what
holds on these three holds on every space whose `traits` occur in them, and a suite need not run on every space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import HasCosts, HasLayerSignatures, HasNamed, HasNotation, HasVariation, SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, Task

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import nn


class _Unbuilt(SearchSpace):
    tasks = frozenset({IMAGE_CLASSIFICATION})

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        raise NotImplementedError(f"space '{self.name}' is there to be searched, not to be built")


NONE, SKIP, CONV, POOL = OPERATIONS = ("none", "skip", "conv", "pool")
EDGES = {f"edge.{source}-{target}": (source, target) for target in (1, 2, 3) for source in range(target)}


class FixedGraph(_Unbuilt):
    """A cell of four nodes with an operation on each of its six edges: one kind, one graph, and an identity that
    merges. 4,096 architectures."""

    name = "fixed-graph"
    choices = tuple(Choice(name, OPERATIONS, "operation") for name in EDGES)
    named: Mapping[str, Architecture] = MappingProxyType(
        {f"all {operation}": Architecture("fixed-graph", dict.fromkeys(EDGES, operation)) for operation in OPERATIONS}
    )

    def identity(self, arch: Architecture) -> str:
        """The sum of terms at the last node; an operation on nothing is nothing."""
        sums: list[list[str]] = [["x"], [], [], []]
        for name, (source, target) in EDGES.items():
            operation, terms = arch.values[name], sums[source]
            if operation == SKIP:
                sums[target] += terms
            elif operation != NONE and terms:
                sums[target].append(f"{operation}({'+'.join(sorted(terms))})")
        return "+".join(sorted(sums[-1])) or "0"

    def graph(self, arch: Architecture) -> ArchGraph:
        """Operations as nodes, between input and output; one feeds those that leave its target."""
        ends = [(-1, 0), *EDGES.values(), (3, 4)]
        links = ((i, j) for i, (_, target) in enumerate(ends) for j, (source, _) in enumerate(ends) if source == target)
        labels = ("input", *map(str, arch.values.values()), "output")
        return ArchGraph(labels, tuple(links), fixed_topology=True, skips=frozenset({SKIP}), zeros=frozenset({NONE}))

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Nine for every convolution."""
        convolutions = 9 * Counter(arch.values.values())[CONV]
        return {"params": convolutions, "macs": convolutions}

    def to_text(self, arch: Architecture) -> str:
        return "|".join(map(str, arch.values.values()))

    def from_text(self, text: str) -> Architecture:
        operations = text.split("|")
        if len(operations) != len(EDGES) or not set(operations) <= set(OPERATIONS):
            raise ValueError(f"'{text}' is not {len(EDGES)} of {', '.join(OPERATIONS)}, separated by '|'")
        return Architecture(self.name, dict(zip(EDGES, operations, strict=True)))


UNITS = 6
WIDTHS = (8, 16, 32)


class UnitList(_Unbuilt):
    """One to six units: conditions, also on choices that have some, numbers in order, truth values, several kinds,
    graphs of all shapes, and moves of its own. 226,557 architectures."""

    name = "unit-list"

    def __init__(self) -> None:
        self.choices = tuple(self._choices())

    def _choices(self) -> Iterator[Choice]:
        yield Choice("stem", ("plain",))
        yield Choice("length", tuple(range(1, UNITS + 1)), "length", ordered=True)
        yield Choice("dropout", (0.0, 0.1, 0.3), ordered=True)
        for number in range(1, UNITS + 1):
            unit, types = f"unit{number}", ("conv", "dense", "pool") if number > 1 else ("conv", "dense")
            present = (When("length", tuple(range(number, UNITS + 1))),) if number > 1 else ()
            convolution = (When(f"{unit}/type", ("conv",)),)
            yield Choice(f"{unit}/type", types, "type", present)
            yield Choice(f"{unit}/width", WIDTHS, "width", (When(f"{unit}/type", ("conv", "dense")),), ordered=True)
            yield Choice(f"{unit}/residual", (False, True), "residual", (*present, *convolution))

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """A unit is at least as wide as the units before it."""
        if not choice.name.endswith("/width"):
            return choice.options
        least = max((int(value) for name, value in prefix.items() if name.endswith("/width")), default=0)
        return tuple(width for width in WIDTHS if width >= least)

    def identity(self, arch: Architecture) -> str:
        """All but the dropout."""
        return " ".join(f"{name}={value}" for name, value in arch.values.items() if name != "dropout")

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain of units, and an edge around each residual one."""
        labels = ["input"]
        edges: list[tuple[int, int]] = []
        for number in range(1, int(arch.values["length"]) + 1):
            labels.append(f"{arch.values[f'unit{number}/type']} {arch.values.get(f'unit{number}/width', '')}".strip())
            edges.append((number - 1, number))
            if arch.values.get(f"unit{number}/residual"):
                edges.append((number - 1, number + 1))
        return ArchGraph((*labels, "output"), (*edges, (len(labels) - 1, len(labels))))

    def layer_signatures(self, arch: Architecture) -> Mapping[str, Hashable]:
        """Of units with weights: what they are, as wide as they are."""
        found: dict[str, Hashable] = {}
        for number in range(1, int(arch.values["length"]) + 1):
            unit = f"unit{number}"
            if f"{unit}/width" in arch.values:
                found[unit] = (arch.values[f"{unit}/type"], arch.values[f"{unit}/width"])
        return found

    def mutate(self, arch: Architecture, rng: Generator) -> Architecture:
        """A unit is drawn anew."""
        while True:
            unit = f"unit{rng.integers(1, int(arch.values['length']) + 1)}/"
            kept = {name: value for name, value in arch.values.items() if not name.startswith(unit)}
            child = moves.complete(self, kept, moves.uniformly(rng))
            if child != arch:
                return child

    def crossover(self, one: Architecture, other: Architecture, rng: Generator) -> tuple[Architecture, Architecture]:
        """The first choices of one parent and the later ones of the other."""
        head = {choice.name for choice in self.choices[: int(rng.integers(1, len(self.choices)))]}
        first, second = (
            moves.complete(
                self,
                {name: value for name, value in front.values.items() if name in head}
                | {name: value for name, value in back.values.items() if name not in head},
                moves.uniformly(rng),
            )
            for front, back in ((one, other), (other, one))
        )
        return first, second


class Six(_Unbuilt):
    """Six architectures, which every strategy comes to the end of."""

    name = "six"
    choices = (Choice("depth", (1, 2, 3)), Choice("activation", ("relu", "silu")))


TRAIT_SPACES: Mapping[str, type[SearchSpace]] = {space.name: space for space in (FixedGraph, UnitList, Six)}

Archs = Sequence[Architecture]
LISTED = 20_000


def _of_type(kind: type) -> Callable[[SearchSpace, Archs], bool]:
    return lambda space, archs: any(type(choice.options[0]) is kind for choice in space.choices)


def _some(holds: Callable[[Choice], bool]) -> Callable[[SearchSpace, Archs], bool]:
    return lambda space, archs: any(holds(choice) for choice in space.choices)


def _kinds(space: SearchSpace) -> dict[str, set[tuple[Value, ...]]]:
    """The sets of options of each kind."""
    found: dict[str, set[tuple[Value, ...]]] = {}
    for choice in space.choices:
        if choice.kind:
            found.setdefault(choice.kind, set()).add(choice.options)
    return found


def _has_conditional_conditions(space: SearchSpace, archs: Archs) -> bool:
    conditional = {choice.name for choice in space.choices if choice.when}
    return any(condition.name in conditional for choice in space.choices for condition in choice.when)


def _restricted(space: SearchSpace, archs: Archs) -> Iterator[int]:
    """How many options are left wherever `allowed` leaves out some."""
    for arch in archs:
        prefix: dict[str, Value] = {}
        for choice in space.choices:
            if choice.name in arch.values:
                options = space.allowed(choice, prefix)
                if options != choice.options:
                    yield len(options)
                prefix[choice.name] = arch.values[choice.name]


def _merges(space: SearchSpace, archs: Archs) -> bool:
    near = {neighbour for arch in archs[:5] for neighbour in moves.neighbours(space, arch)} | set(archs)
    return len({space.identity(arch) for arch in near}) < len(near)


def _graphs(space: SearchSpace, archs: Archs) -> Iterable[ArchGraph]:
    return map(space.graph, archs)


TRAITS: Mapping[str, Callable[[SearchSpace, Archs], bool]] = {
    "texts": _of_type(str),
    "whole numbers": _of_type(int),
    "fractions": _of_type(float),
    "truth values": _of_type(bool),
    "options in order": _some(lambda choice: choice.ordered),
    "options in no order": _some(lambda choice: not choice.ordered),
    "a choice of one option": _some(lambda choice: len(choice.options) == 1),
    "a choice without a kind": _some(lambda choice: not choice.kind),
    "one kind": lambda space, archs: len(_kinds(space)) == 1,
    "several kinds": lambda space, archs: len(_kinds(space)) > 1,
    "one kind with several sets of options": lambda space, archs: any(len(sets) > 1 for sets in _kinds(space).values()),
    "conditions": _some(lambda choice: len(choice.when) > 0),
    "several conditions on one choice": _some(lambda choice: len(choice.when) > 1),
    "conditions of several values": _some(lambda choice: any(len(condition.values) > 1 for condition in choice.when)),
    "conditions on choices that have conditions": _has_conditional_conditions,
    "options that depend on earlier values": lambda space, archs: any(_restricted(space, archs)),
    "one option left by earlier values": lambda space, archs: 1 in _restricted(space, archs),
    "an identity of its own": lambda space, archs: any(space.identity(arch) != arch.key for arch in archs),
    "an identity that merges": _merges,
    "a graph of its own": lambda space, archs: type(space).graph is not SearchSpace.graph,
    "one graph for all": lambda space, archs: all(graph.fixed_topology for graph in _graphs(space, archs)),
    "graphs of several sizes": lambda space, archs: len({len(graph.nodes) for graph in _graphs(space, archs)}) > 1,
    "graphs of one size with other edges": lambda space, archs: (
        max(Counter(size for size, _ in {(len(g.nodes), g.edges) for g in _graphs(space, archs)}).values()) > 1
    ),
    "graphs that branch": lambda space, archs: any(len(g.edges) > len(g.nodes) - 1 for g in _graphs(space, archs)),
    "skips": lambda space, archs: any(graph.skips for graph in _graphs(space, archs)),
    "zeros": lambda space, archs: any(graph.zeros for graph in _graphs(space, archs)),
    "moves of its own": lambda space, archs: isinstance(space, HasVariation),
    "a notation": lambda space, archs: isinstance(space, HasNotation),
    "named architectures": lambda space, archs: isinstance(space, HasNamed),
    "layers that share weights": lambda space, archs: isinstance(space, HasLayerSignatures),
    "costs": lambda space, archs: isinstance(space, HasCosts),
    "too many to list": lambda space, archs: (moves.size(space, LISTED) or LISTED + 1) > LISTED,
    "few enough to exhaust": lambda space, archs: (moves.size(space, 100) or 101) <= 100,
}
"""What strategies can tell of a space, and of 100 of its architectures; a new one goes here."""


def traits(space: SearchSpace) -> frozenset[str]:
    """Those of `TRAITS` that the space has."""
    archs = [moves.sample(space, generator("traits", number)) for number in range(100)]
    return frozenset(name for name, holds in TRAITS.items() if holds(space, archs))
