"""Encodings: architectures of any search space as named columns of numbers, in blocks.

White, Neiswanger, Nolen and Savani, "A Study on Encodings for Neural Architecture Search", NeurIPS 2020; the path
encoding is that of BANANAS (White, Neiswanger and Savani, AAAI 2021). `contracted-paths` is ours: skips are left out of
the paths, and paths through zeros do not count, so cells that compute the same functions have the same columns.

Which columns a space has depends on the space alone, never on what was evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError, unknown
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import Same, SearchSpace
from predictors.structure import PROPERTIES, properties
from predictors.surrogate import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

SAMPLE = 256  # architectures that show which labels and paths a space has
COLUMNS = 256  # of a block, at most, that depend on the sample
REFERENCE = 200  # architectures among which proxies are ranked, unless the problem names them
REMEMBERED = 20_000  # encoded architectures

Path = tuple[str, ...]
T = TypeVar("T")


class Topology:
    """What of a graph does not depend on its labels. Nodes are in topological order."""

    def __init__(self, graph: ArchGraph) -> None:
        self.order = graph.order
        place = {node: position for position, node in enumerate(graph.order)}
        self.edges = sorted((place[source], place[target]) for source, target in graph.edges)
        self.parents: list[list[int]] = [[] for _ in graph.nodes]
        self.children: list[list[int]] = [[] for _ in graph.nodes]
        for source, target in self.edges:
            self.parents[target].append(source)
            self.children[source].append(target)
        self.nodes = range(len(graph.nodes))
        self.operations = [bool(self.parents[node] and self.children[node]) for node in self.nodes]
        self._live: dict[tuple[bool, ...], list[bool]] = {}

    def live(self, zero: tuple[bool, ...]) -> list[bool]:
        """Which nodes are on a path from a source to a sink; those that are `zero` hand on nothing."""
        if zero not in self._live:
            if len(self._live) >= REMEMBERED:
                self._live.clear()
            fed, read = [False] * len(zero), [False] * len(zero)
            for node, parents in enumerate(self.parents):
                fed[node] = not zero[node] and (not parents or any(fed[parent] for parent in parents))
            for node in reversed(self.nodes):
                children = self.children[node]
                read[node] = fed[node] and (not children or any(read[child] for child in children))
            self._live[zero] = read
        return self._live[zero]

    def sequences(
        self, labels: Sequence[Collection[str]], skips: Collection[str], zeros: Collection[str], limit: int
    ) -> set[Path]:
        """The labels along every path from a source to a sink, both included, where each node has any of its labels.

        Skips are left out and what runs through zeros is dropped; of more than `limit` sequences at a node the
        shortest are kept.
        """
        found: list[set[Path]] = []
        ends: set[Path] = set()
        for node, parents in enumerate(self.parents):
            before: set[Path] = set().union(*[found[parent] for parent in parents]) if parents else {()}
            here: set[Path] = set()
            for label in labels[node]:
                if label in skips:
                    here |= before
                elif label not in zeros:
                    here.update([(*path, label) for path in before])
            if len(here) > limit:
                here = set(sorted(here, key=lambda path: (len(path), path))[:limit])
            found.append(here)
            if not self.children[node]:
                ends |= here
        return ends


class View:
    """An architecture with its graph, computed when first asked for."""

    def __init__(self, space: SearchSpace, arch: Architecture, known: dict[object, Topology]) -> None:
        self._space, self.arch, self._known = space, arch, known

    @cached_property
    def graph(self) -> ArchGraph:
        return self._space.graph(self.arch)

    @cached_property
    def topology(self) -> Topology:
        graph = self.graph
        key = (len(graph.nodes), graph.edges)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[key] = Topology(graph)
        return found

    @cached_property
    def labels(self) -> list[str]:
        """In the order of the topology."""
        return [self.graph.nodes[node] for node in self.topology.order]

    @cached_property
    def live(self) -> list[bool]:
        """Which nodes, in the order of the topology, are on a path from a source to a sink without zeros."""
        zeros = self.graph.zeros
        return self.topology.live(tuple([label in zeros for label in self.labels]))


class Space:
    """A problem's space as blocks see it: its views, and the sample that shows what there is."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._topologies: dict[object, Topology] = {}

    def view(self, arch: Architecture) -> View:
        return View(self.problem.space, arch, self._topologies)

    @cached_property
    def sample(self) -> list[View]:
        """The same for every study of the space."""
        rng = generator("encodings", self.problem.space.name)
        return [self.view(moves.sample(self.problem.space, rng)) for _ in range(SAMPLE)]

    def shown(self, reader: str, read: Callable[[Sequence[View]], Iterable[T]]) -> tuple[T, ...]:
        """What `read` finds in the sample."""
        known = _shown(Same(self.problem.space))
        if reader not in known:
            known[reader] = tuple(read(self.sample))
        return known[reader]


@lru_cache(maxsize=16)
def _shown(space: Same) -> dict[str, tuple[Any, ...]]:
    """What the sample of a space has shown, by who reads it; the same for all problems of the space."""
    return {}


class Block(Protocol):
    """Some columns."""

    names: tuple[str, ...]

    def encode(self, views: Sequence[View]) -> Floats:
        """Shape [views, names]."""
        ...


class OneHot:
    """An indicator per option of every choice, as `nas_core.tokens.one_hot`; all zeros where a choice is inactive."""

    def __init__(self, space: Space) -> None:
        options = [(choice.name, option) for choice in space.problem.space.choices for option in choice.options]
        self.names = tuple(f"{name}={option}" for name, option in options)
        self._columns = {pair: column for column, pair in enumerate(options)}

    def encode(self, views: Sequence[View]) -> Floats:
        return _indicators(len(self.names), [[self._columns[pair] for pair in v.arch.values.items()] for v in views])


class Ordinal:
    """Where the value of an ordered choice is among its options, from 0 to 1, and -1 where it is inactive."""

    def __init__(self, space: Space) -> None:
        ordered = [choice for choice in space.problem.space.choices if choice.ordered and len(choice.options) > 1]
        self.names = tuple(choice.name for choice in ordered)
        self._places = [
            {option: place / (len(choice.options) - 1) for place, option in enumerate(choice.options)}
            for choice in ordered
        ]

    def encode(self, views: Sequence[View]) -> Floats:
        rows = [
            [
                places[view.arch.values[name]] if name in view.arch.values else -1.0
                for name, places in zip(self.names, self._places, strict=True)
            ]
            for view in views
        ]
        return numpy.array(rows, dtype=float).reshape(len(views), len(self.names))


class Paths:
    """Indicators of the operations along the paths from an input to an output, zeros and skips like any other.

    All that can occur where only labels differ between architectures (5 + 25 + 125 on NAS-Bench-201); otherwise, or
    where that is more than `COLUMNS`, those most frequent in the sample that occur in it twice.
    """

    contracted = False

    def __init__(self, space: Space) -> None:
        vocabulary = space.shown(type(self).__name__, self._vocabulary)
        self.names = tuple(" > ".join(path) for path in vocabulary)
        self._columns = {path: column for column, path in enumerate(vocabulary)}

    def encode(self, views: Sequence[View]) -> Floats:
        columns = self._columns
        found = [[columns[path] for path in self._of(view) if path in columns] for view in views]
        return _indicators(len(self.names), found)

    def _of(self, view: View) -> set[Path]:
        return self._sequences(view, [(label,) for label in view.labels], 4 * COLUMNS)

    def _sequences(self, view: View, labels: Sequence[Collection[str]], limit: int) -> set[Path]:
        graph = view.graph
        removed: tuple[Collection[str], Collection[str]] = (graph.skips, graph.zeros) if self.contracted else ((), ())
        return view.topology.sequences(labels, *removed, limit)

    def _vocabulary(self, sample: Sequence[View]) -> list[Path]:
        possible = self._possible(sample)
        if possible is not None:
            return possible
        seen = Counter(path for view in sample for path in self._of(view))
        often = [path for path, count in seen.items() if count > 1]
        return sorted(often, key=lambda path: (-seen[path], len(path), path))[:COLUMNS]

    def _possible(self, sample: Sequence[View]) -> list[Path] | None:
        """The sequences of all architectures, where the graph is the same for all of them and they are not too many."""
        if not all(view.graph.fixed_topology for view in sample):
            return None
        labels = [sorted(set(found)) for found in zip(*(view.labels for view in sample), strict=True)]
        found = self._sequences(sample[0], labels, COLUMNS + 1)
        return sorted(found, key=lambda path: (len(path), path)) if len(found) <= COLUMNS else None


class ContractedPaths(Paths):
    """Indicators of the operations along the paths from an input to an output, without skips; paths through zeros do
    not count. On NAS-Bench-201: 1 + 3 + 9 + 27, and cells of one `identity` have the same."""

    contracted = True


class Counts:
    """How many live operations have each label, and how many operations are dead: on no path, or on zeros alone.

    The labels are the most frequent ones of the sample; inputs and outputs are no operations.
    """

    def __init__(self, space: Space) -> None:
        self.names = (*space.shown("counts", self._labels), "dead")
        self._columns = {label: column for column, label in enumerate(self.names[:-1])}

    def encode(self, views: Sequence[View]) -> Floats:
        counts = numpy.zeros((len(views), len(self.names)))
        for row, view in zip(counts, views, strict=True):
            live = self._live(view)
            for label in live:
                if label in self._columns:
                    row[self._columns[label]] += 1
            row[-1] = sum(view.topology.operations) - len(live)
        return counts

    def _labels(self, sample: Sequence[View]) -> list[str]:
        seen = Counter(label for view in sample for label in self._live(view))
        return sorted(sorted(seen, key=lambda label: (-seen[label], label))[:COLUMNS])

    def _live(self, view: View) -> list[str]:
        found = zip(view.labels, view.live, view.topology.operations, strict=True)
        return [label for label, live, operation in found if live and operation]


class Structure:
    """`structure.PROPERTIES` of the graph of live nodes, and the fraction of skips among its operations."""

    names: tuple[str, ...] = (*PROPERTIES, "skips")

    def __init__(self, space: Space) -> None:
        self._known: dict[object, Floats] = {}

    def encode(self, views: Sequence[View]) -> Floats:
        return numpy.array([self._row(view) for view in views]).reshape(len(views), len(self.names))

    def _row(self, view: View) -> Floats:
        topology, live = view.topology, view.live
        nodes = [node for node in topology.nodes if live[node]]
        place = {node: position for position, node in enumerate(nodes)}
        edges = tuple((place[a], place[b]) for a, b in topology.edges if live[a] and live[b])
        if (key := (len(nodes), edges)) not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = properties(*key)
        operations = [view.labels[node] for node in nodes if topology.operations[node]]
        skips = sum(label in view.graph.skips for label in operations) / (len(operations) or 1)
        return numpy.append(self._known[key], skips)


class Costs:
    """Logarithms of the parameters and multiply-adds, by the scores `params` and `macs`."""

    names: tuple[str, ...] = ("log-params", "log-macs")

    def __init__(self, space: Space) -> None:
        self._problem = space.problem

    def encode(self, views: Sequence[View]) -> Floats:
        archs = [view.arch for view in views]
        columns = [scores(self._problem, name, archs) for name in ("params", "macs")]
        return numpy.log1p(numpy.maximum(numpy.stack(columns, axis=1), 0))


class Proxies:
    """Where the score of each proxy ranks among those of the reference architectures, from 0 to 1; half for ties."""

    def __init__(self, space: Space, proxies: Sequence[str]) -> None:
        self.names = tuple(proxies)
        self._problem = space.problem

    def encode(self, views: Sequence[View]) -> Floats:
        archs = [view.arch for view in views]
        return numpy.stack([self._rank(name, scores(self._problem, name, archs)) for name in self.names], axis=1)

    def _rank(self, name: str, found: Floats) -> Floats:
        pool = self._pools[name]
        below, up_to = (numpy.searchsorted(pool, found, side) for side in ("left", "right"))
        return (below + up_to) / (2 * len(pool))

    @cached_property
    def _pools(self) -> Mapping[str, Floats]:
        problem = self._problem
        rng = generator(problem.seed, "reference")
        archs = list(problem.reference) or [moves.sample(problem.space, rng) for _ in range(REFERENCE)]
        return {name: numpy.sort(scores(problem, name, archs)) for name in self.names}


BLOCKS: Mapping[str, Callable[[Space], Block]] = {
    "one-hot": OneHot,
    "ordinal": Ordinal,
    "paths": Paths,
    "contracted-paths": ContractedPaths,
    "counts": Counts,
    "structure": Structure,
    "costs": Costs,
}
PROXY_BLOCK = "proxies"  # of the columns that `Encoder(proxies=...)` adds

DEFAULT = ("one-hot", "ordinal", "contracted-paths", "counts")


class Encoder:
    """Architectures as rows of numbers.

    `names` are the columns, `groups` the block of each of them: those of `blocks` in this order, then `proxies` for
    the proxies, each ranked among `problem.reference` (where that is empty: `REFERENCE` architectures drawn with the
    problem's seed, which are scored too). What was encoded is remembered.

    Raises UsageError for an unknown block, and for costs or proxies of a problem without scores.
    """

    def __init__(self, problem: Problem, blocks: Sequence[str] = DEFAULT, proxies: Sequence[str] = ()) -> None:
        for name in blocks:
            if name not in BLOCKS:
                raise unknown("encoding", name, BLOCKS)
        if problem.score is None and ("costs" in blocks or proxies):
            needs = ", ".join([*(["params, macs"] if "costs" in blocks else []), *proxies])
            raise UsageError(
                f"the encoding needs scores ({needs}), but this study has none; give --scores or --score-on"
            )
        self._space = Space(problem)
        found: dict[str, Block] = {name: BLOCKS[name](self._space) for name in blocks}
        if proxies:
            found[PROXY_BLOCK] = Proxies(self._space, proxies)
        self._blocks = tuple(found.values())
        self.names = tuple(name for block in self._blocks for name in block.names)
        self.groups = tuple(group for group, block in found.items() for _ in block.names)
        self._rows: dict[Architecture, Floats] = {}

    def encode(self, archs: Sequence[Architecture]) -> Floats:
        """Shape [architectures, names], finite."""
        rows = self._rows
        missing = list(dict.fromkeys(arch for arch in archs if arch not in rows))
        if len(rows) + len(missing) > REMEMBERED:
            rows.clear()
            missing = list(dict.fromkeys(archs))
        if missing:
            views = [self._space.view(arch) for arch in missing]
            parts = [block.encode(views) for block in self._blocks]
            rows.update(zip(missing, numpy.concatenate(parts, axis=1) if parts else [], strict=True))
        if not archs:
            return numpy.zeros((0, len(self.names)))
        return numpy.stack([rows[arch] for arch in archs])


def scores(problem: Problem, name: str, archs: Sequence[Architecture]) -> Floats:
    """Scores [architectures], NaN being the worst. Raises UsageError for a problem without them."""
    if problem.score is None:
        raise UsageError(f"'{name}' is a score, but this study has none; give --scores or --score-on")
    found = numpy.array(problem.score(name, archs), dtype=float).reshape(len(archs))
    return numpy.where(numpy.isnan(found), -numpy.inf, found)


def _indicators(columns: int, found: Sequence[Sequence[int]]) -> Floats:
    rows = numpy.zeros((len(found), columns))
    for row, positions in zip(rows, found, strict=True):
        row[positions] = 1.0
    return rows
