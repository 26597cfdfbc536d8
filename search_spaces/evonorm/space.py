"""EvoNorm: normalisation and activation as one layer of elementary functions.

Liu, Brock, Simonyan and Le, "Evolving Normalization-Activation Layers", NeurIPS 2020. A layer is a graph on one tensor:
four initial values (the input x, zero, and v0 and v1, trained per channel, which start at 0 and 1), ten nodes, each an
operation on earlier values, and a scale and shift per channel after the last one. What a node computes that the last
one does not read is not there. `primitives` has the operations and conventions, `named` the layers of the paper.

An architecture is such a layer; its network is that of a host (`search_spaces.hosts`), which has it in the place of
every normalisation with its activation. Most architectures are unsound, and are told without building anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.parts import PartSource
from nas_core.space import SearchSpace, check_legal
from nas_core.task import Task
from search_spaces.evonorm import formula
from search_spaces.evonorm.graph import INITIAL, Graph, graph_of
from search_spaces.evonorm.named import FORMULAS
from search_spaces.evonorm.primitives import BINARY, OPS, of_batch
from search_spaces.hosts import HOSTS
from search_spaces.hosts.network import HostSize, host_network, known_hosts

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import nn

NODES = 10
NAMES = tuple(f"n{number}" for number in range(1, NODES + 1))
PLACES = (*INITIAL, *NAMES)
PART = "layer"


class EvoNorm(SearchSpace):
    """Layers of up to ten operations; `batch=False`: without moments of the batch, in training what in evaluation."""

    name = "evonorm"
    tasks = frozenset().union(*(host.kinds for host in HOSTS.values()))
    Size = HostSize
    why_not_relaxable = (
        "a node's operations have values of other shapes, and a mixture of them is no layer of the space"
    )

    def __init__(self, batch: bool = True) -> None:
        if type(batch) is not bool:
            raise UsageError(f"evonorm: batch is {batch!r}; use true or false")
        ops = tuple(op for op in OPS if batch or not of_batch(op))
        self.choices = tuple(choice for number in range(NODES) for choice in _choices(number, ops))
        self._ops = frozenset(ops)
        known = {name: formula.from_text(text, NODES) for name, text in FORMULAS.items()}
        sound = {name: graph for name, graph in known.items() if all(node.op in self._ops for node in graph.nodes)}
        self.named: Mapping[str, Architecture] = MappingProxyType({n: self.architecture(g) for n, g in sound.items()})
        without = "it has moments of the batch, which evonorm(batch=False) leaves out"
        self.left_out = dict.fromkeys((name for name in known if name not in sound), without)

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The size's host with the layer, untrained (`search_spaces.hosts.host.host_network`).

        Raises UsageError for an illegal architecture, a host that does not learn the task, or another space's size.
        """
        from search_spaces.evonorm.layer import EvoNormLayer

        check_legal(self, arch)
        graph = self.layer(arch)
        batch = any(of_batch(node.op) for node in graph.nodes)
        return host_network(HostSize.own(size, self.name), task, lambda channels: EvoNormLayer(graph, channels), batch)

    def hosts(self, task: Task) -> Sequence[str]:
        """Those that learn the task."""
        return known_hosts(task)

    def parts(self, arch: Architecture) -> Sequence[str]:
        return (PART,)

    def part(self, network: nn.Module, arch: Architecture, name: str) -> nn.Module:
        """The first layer of a network."""
        from search_spaces.evonorm.layer import EvoNormLayer

        return next(module for module in network.modules() if isinstance(module, EvoNormLayer))

    def part_source(self, part: nn.Module, arch: Architecture, name: str) -> PartSource:
        """See `source.source`."""
        from search_spaces.evonorm.source import source

        return source(self.layer(arch), len(part.get_parameter("weight")))

    def layer(self, arch: Architecture) -> Graph:
        """The live nodes of a legal architecture."""
        values = arch.values
        rows = []
        for name in NAMES:
            first, second = str(values[f"{name}/in1"]), str(values.get(f"{name}/in2", INITIAL[0]))
            rows.append((str(values[f"{name}/op"]), PLACES.index(first), PLACES.index(second)))
        return graph_of(rows).live()

    def architecture(self, graph: Graph) -> Architecture:
        """The architecture of a graph of at most ten nodes; those that are left are dead, and come first."""
        dead = NODES - len(graph.nodes)

        def place(number: int) -> str:
            return PLACES[number if number < len(INITIAL) else number + dead]

        partial: dict[str, Value] = {}
        for name, node in zip(NAMES[dead:], graph.nodes, strict=True):
            partial |= {f"{name}/op": node.op, f"{name}/in1": place(node.first)}
            if node.second is not None:
                partial[f"{name}/in2"] = place(node.second)
        return moves.complete(self, partial, moves.first)

    def identity(self, arch: Architecture) -> str:
        """See `screens.identity`."""
        from search_spaces.evonorm import screens

        return screens.identity(self.layer(arch))

    def unsound(self, arch: Architecture) -> str | None:
        """See `screens.unsound`."""
        from search_spaces.evonorm import screens

        return screens.unsound(self.layer(arch))

    def to_text(self, arch: Architecture) -> str:
        """The formula of the live nodes."""
        return formula.to_text(self.layer(arch))

    def from_text(self, text: str) -> Architecture:
        """The layer of a formula. Raises ValueError with the position of what is wrong with it."""
        graph = formula.from_text(text, NODES)
        for node in graph.nodes:
            if node.op not in self._ops:
                raise ValueError(
                    f"'{text}' has {node.op}, a moment of the batch, which evonorm(batch=False) leaves out"
                )
        return self.architecture(graph)

    def graph(self, arch: Architecture) -> ArchGraph:
        """The live nodes; initial values hang from one source."""
        layer = self.layer(arch)
        used = sorted(layer.used)
        ops = [node.op for node in layer.nodes]
        position = {place: number for number, place in enumerate(used, 1)}
        labels = ("input", *((*INITIAL, *ops)[place] for place in used), "output")
        edges = [(0, position[place]) for place in used if place < len(INITIAL)]
        for number, node in enumerate(layer.nodes, len(INITIAL)):
            edges += [(position[source], position[number]) for source in sorted(set(node.inputs))]
        return ArchGraph(labels, (*edges, (len(labels) - 2, len(labels) - 1)))

    def mutate(self, arch: Architecture, rng: Generator) -> Architecture:
        """A node drawn uniformly gets an operation and inputs drawn anew, until something is another than it was."""
        while True:
            name = NAMES[int(rng.integers(NODES))]
            kept = {each: value for each, value in arch.values.items() if not each.startswith(f"{name}/")}
            child = moves.complete(self, kept, moves.uniformly(rng))
            if child != arch:
                return child

    def crossover(self, one: Architecture, other: Architecture, rng: Generator) -> tuple[Architecture, Architecture]:
        """The paper has none; that of `nas_core.moves`."""
        return moves.crossover(self, one, other, rng)


def _choices(number: int, ops: Sequence[str]) -> Iterator[Choice]:
    """Of node `number`, counted from 0: operation and inputs, the second one of binary operations."""
    name, earlier = NAMES[number], PLACES[: len(INITIAL) + number]
    yield Choice(f"{name}/op", tuple(ops), "operation")
    yield Choice(f"{name}/in1", earlier, "input")
    yield Choice(f"{name}/in2", earlier, "input", (When(f"{name}/op", tuple(BINARY)),))
