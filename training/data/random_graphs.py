"""`random-graphs?target=triangles`: random graphs whose triangles are counted, or whose degrees are told apart.

Graphs have 8 to 24 nodes and are undirected. `triangles`: every pair of nodes is an edge with probability p, which is
uniform from 0.1 to 0.4 for each graph (Erdos-Renyi); the target is the number of triangles. `degrees`: pairs i, j are
edges with probability min(1, w_i w_j / sum(w)) (Chung and Lu 2002), where the weights of the nodes are all 4 ("even")
or 4 times Pareto numbers of exponent 2 over their mean ("heavy-tailed"); the class is which. The features of a node are
a constant 1 and a uniform number, by which networks can tell nodes apart that message passing alone cannot (Sato et al.
2021). Everything is drawn from the seed, by raw uniform numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.seeds import generator
from nas_core.task import GRAPH_CLASSIFICATION
from training.data.files import nothing
from training.data.many_graphs import ManyGraphSource, many_graph_source
from training.data.reference import options
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST, MOST = 8, 24
DEGREE, EXPONENT = 4.0, 2.0
CLASSES = ("even", "heavy-tailed")


class Options(Config):
    """What follows the name, as in `random-graphs?target=degrees&graphs=500`."""

    target: Literal["degrees"] = Field(default="degrees", description="what is learned of a graph")
    graphs: int = Field(default=1000, ge=10, le=1_000_000)
    seed: int = Field(default=0, ge=0, description="what the graphs are drawn from")


def load(argument: str, split: Split) -> ManyGraphSource:
    """The graphs, with features [nodes, 2]."""
    where, chosen = options("random-graphs", argument, Options)
    nothing("random-graphs", where)
    draws = generator(chosen.seed, "random-graphs", chosen.target)
    counts = LEAST + (draws.random(chosen.graphs) * (MOST - LEAST + 1)).astype(np.int64)
    uneven = (np.arange(chosen.graphs) % 2).astype(np.int64)
    there = np.arange(MOST) < counts[:, None]
    heavy = (1 - draws.random((chosen.graphs, MOST))) ** (-1 / EXPONENT) * there
    heavy *= counts[:, None] / heavy.sum(1, keepdims=True)
    weights = DEGREE * np.where(uneven[:, None] == 1, heavy, there)
    chance = weights[:, :, None] * weights[:, None] / weights.sum(1)[:, None, None]
    edge_index = drawn_edges(chance, counts, draws)
    nodes = int(counts.sum())
    features = np.stack([np.ones(nodes), draws.random(nodes)], axis=1)
    return many_graph_source(
        f"random-graphs{argument}",
        GRAPH_CLASSIFICATION,
        features,
        edge_index,
        counts,
        uneven,
        split,
        {"classes": CLASSES},
    )


def drawn_edges(
    chance: NDArray[np.float64], counts: NDArray[np.int64], draws: np.random.Generator
) -> NDArray[np.int64]:
    """Both directions of edges [2, e] among the nodes of all graphs, of the probability [graphs, most, most] of each
    pair; only pairs of the `counts` first nodes of a graph are looked at."""
    most = chance.shape[1]
    there = np.arange(most) < counts[:, None]
    pairs = np.triu(np.ones((most, most), bool), 1) & there[:, :, None] & there[:, None]
    graph, one, other = np.nonzero((draws.random(chance.shape) < chance) & pairs)
    starts = (np.cumsum(counts) - counts)[graph]
    return np.concatenate([np.stack([one, other]), np.stack([other, one])], 1) + np.tile(starts, 2)
