"""`sbm-pattern?graphs=N` and `sbm-cluster?graphs=N`: graphs of stochastic block models, generated.

Those of Dwivedi et al., "Benchmarking graph neural networks", JMLR 2023, section 3 and appendix A, by their published
code. A community has 5 to 34 nodes; two nodes are joined with probability p inside of a community, q between two.

PATTERN: five communities with p = 0.5, q = 0.2 (the paper prints 0.35), every node with one of three values, drawn
uniformly; and a pattern of 20 nodes, any two joined with 0.5, that is joined to the others with 0.5. A pattern, its
values too, is that of 140 graphs. The class of a node is whether it belongs to the pattern.

CLUSTER: six communities with p = 0.55, q = 0.25. One node of each has the number of its community as value, 1 to 6; all
others have 0. The class of a node is its community.

Nodes come in random order; values are one-hot features. Everything is drawn from the seed, by raw uniform numbers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.seeds import generator
from nas_core.task import INDUCTIVE_NODE_CLASSIFICATION
from training.data.files import nothing
from training.data.many_graphs import ManyGraphSource, many_graph_source
from training.data.random_graphs import drawn, edges
from training.data.reference import options
from training.data.split import Split

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Integers: TypeAlias = NDArray[np.int64]
    # Nodes of each graph [graphs], probabilities of edges [graphs, most, most], values and classes [graphs, most].
    Made: TypeAlias = tuple[Integers, NDArray[np.float64], Integers, Integers]

LEAST, MOST = 5, 34  # nodes of a community
PATTERN, SHARING, VALUES = 20, 140, 3
INSIDE, JOINED = 0.5, 0.5  # of a pattern: probabilities of edges among its nodes, and to the others
CHUNK = 64  # graphs whose pairs of nodes are in memory together


class Options(Config):
    """What follows the name, as in `sbm-cluster?graphs=200`."""

    graphs: int = Field(default=1000, ge=10, le=100_000)
    seed: int = Field(default=0, ge=0, description="what the graphs are drawn from")


def _load(name: str, argument: str, split: Split) -> ManyGraphSource:
    where, chosen = options(name, argument, Options)
    nothing(name, where)
    draws = generator(chosen.seed, name)
    make = _pattern if name == "sbm-pattern" else _cluster
    patterns = _patterns(-(-chosen.graphs // SHARING), draws)
    nodes, ends, values, classes = [], [], [], []
    before = 0
    for start in range(0, chosen.graphs, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, chosen.graphs))
        counts, chance, value, label = make(numbers, patterns, draws)
        ends.append(edges(drawn(chance, counts, draws), counts) + before)
        there = np.arange(chance.shape[1]) < counts[:, None]
        nodes.append(counts)
        values.append(value[there])
        classes.append(label[there])
        before += int(counts.sum())
    tags = np.concatenate(values)
    names = ("other", "pattern") if name == "sbm-pattern" else tuple(str(number) for number in range(6))
    known = np.arange(VALUES if name == "sbm-pattern" else 7)
    return many_graph_source(
        f"{name}{argument}",
        INDUCTIVE_NODE_CLASSIFICATION,
        tags[:, None] == known,
        np.concatenate(ends, axis=1),
        np.concatenate(nodes),
        np.concatenate(classes),
        split,
        {"tags": tuple(known.tolist()), "classes": names},
    )


load_pattern = partial(_load, "sbm-pattern")
load_cluster = partial(_load, "sbm-cluster")


def _pattern(numbers: Integers, patterns: tuple[Integers, Integers], draws: np.random.Generator) -> Made:
    community, counts, order = _communities(len(numbers), 5, PATTERN, draws)
    joined, values = (each[numbers // SHARING] for each in patterns)
    own = community == 5
    place = np.take_along_axis(np.cumsum(own, axis=1) - 1, order, axis=1).clip(0, PATTERN - 1)
    community, own = (np.take_along_axis(each, order, axis=1) for each in (community, own))
    chance = np.where(community[:, :, None] == community[:, None], 0.5, 0.2)
    either, both = own[:, :, None] | own[:, None], own[:, :, None] & own[:, None]
    chance[either] = JOINED
    graph = np.arange(len(numbers))[:, None, None]
    chance = np.where(both, joined[graph, place[:, :, None], place[:, None]], chance)  # there, or not
    drawn_values = (draws.random(community.shape) * VALUES).astype(np.int64)
    value = np.where(own, np.take_along_axis(values, place, axis=1), drawn_values)
    return counts, chance, value, own.astype(np.int64)


def _cluster(numbers: Integers, _: tuple[Integers, Integers], draws: np.random.Generator) -> Made:
    community, counts, order = _communities(len(numbers), 6, 0, draws)
    community = np.take_along_axis(community, order, axis=1)
    chance = np.where(community[:, :, None] == community[:, None], 0.55, 0.25)
    # Nodes are in random order: the first of a community is any of them.
    first = (community[:, None] == np.arange(6)[:, None]).argmax(axis=2)
    value = np.zeros_like(community)
    np.put_along_axis(value, first, np.arange(1, 7)[None], axis=1)
    return counts, chance, value, community


def _patterns(count: int, draws: np.random.Generator) -> tuple[Integers, Integers]:
    """Adjacencies [count, 20, 20] and values [count, 20] of the patterns."""
    sizes = np.full(count, PATTERN)
    joined = drawn(np.full((count, PATTERN, PATTERN), INSIDE), sizes, draws).astype(np.int64)
    return joined, (draws.random((count, PATTERN)) * VALUES).astype(np.int64)


def _communities(
    graphs: int, communities: int, more: int, draws: np.random.Generator
) -> tuple[Integers, Integers, Integers]:
    """Of each place [graphs, most] the community, in order; `more` nodes of a further one, and places that no node has,
    follow. Also the nodes of each graph [graphs], and a random order [graphs, most] of its places, the empty ones last.
    """
    sizes = LEAST + (draws.random((graphs, communities)) * (MOST - LEAST + 1)).astype(np.int64)
    ends = np.cumsum(np.concatenate([sizes, np.full((graphs, 1), more)], axis=1), axis=1)
    places = np.arange(communities * MOST + more)
    community = (places[None, :, None] >= ends[:, None]).sum(axis=2)
    keys = draws.random(community.shape)
    keys[community > communities] = 2.0
    return community, ends[:, -1], np.argsort(keys, axis=1, kind="stable")
