"""`random-graphs?target=triangles`: random graphs of which something is to be told, generated.

Graphs have 8 to 24 nodes and are undirected. For the targets `triangles` and `roles` every pair of nodes is an edge
with probability p, which is uniform from 0.1 to 0.4 for each graph (Erdos and Renyi 1959). `triangles`: the number of
triangles of a graph. `roles`: what is true of a node, any of "hub" (more neighbours than its graph has on average),
"closed" (it lies on a triangle) and "leaf" (one neighbour). `degrees`: pairs i, j are edges with probability min(1, w_i
w_j / sum(w)) (Chung and Lu 2002), where the weights of the nodes are all 4 ("even") or 4 times Pareto numbers of
exponent 2 over their mean ("heavy-tailed"); the class of a graph is which. The features of a node are a constant 1 and
a uniform number, by which networks can tell nodes apart that message passing alone cannot (Sato et al. 2021).
Everything is drawn from the seed, by raw uniform numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.seeds import generator
from nas_core.task import GRAPH_CLASSIFICATION, GRAPH_REGRESSION, MULTILABEL_NODE_CLASSIFICATION
from training.data.files import nothing
from training.data.many_graphs import ManyGraphSource, many_graph_source
from training.data.reference import options
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST, MOST = 8, 24
LOWEST, HIGHEST = 0.1, 0.4
DEGREE, EXPONENT = 4.0, 2.0
CLASSES = ("even", "heavy-tailed")
ROLES = ("hub", "closed", "leaf")
KINDS = {
    "triangles": GRAPH_REGRESSION,
    "degrees": GRAPH_CLASSIFICATION,
    "roles": MULTILABEL_NODE_CLASSIFICATION,
}
NAMES = {"triangles": (), "degrees": CLASSES, "roles": ROLES}


class Options(Config):
    """What follows the name, as in `random-graphs?target=degrees&graphs=500`."""

    target: Literal["triangles", "degrees", "roles"] = Field(default="triangles", description="what is learned")
    graphs: int = Field(default=1000, ge=10, le=1_000_000)
    seed: int = Field(default=0, ge=0, description="what the graphs are drawn from")


def load(argument: str, split: Split) -> ManyGraphSource:
    """The graphs, with features [nodes, 2]."""
    where, chosen = options("random-graphs", argument, Options)
    nothing("random-graphs", where)
    draws = generator(chosen.seed, "random-graphs", chosen.target)
    counts = LEAST + (draws.random(chosen.graphs) * (MOST - LEAST + 1)).astype(np.int64)
    there = np.arange(MOST) < counts[:, None]
    uneven = (np.arange(chosen.graphs) % 2).astype(np.int64)
    if chosen.target == "degrees":
        heavy = (1 - draws.random((chosen.graphs, MOST))) ** (-1 / EXPONENT) * there
        heavy *= counts[:, None] / heavy.sum(1, keepdims=True)
        weights = DEGREE * np.where(uneven[:, None] == 1, heavy, there)
        chance = weights[:, :, None] * weights[:, None] / weights.sum(1)[:, None, None]
    else:
        shares = LOWEST + (HIGHEST - LOWEST) * draws.random(chosen.graphs)
        chance = np.broadcast_to(shares[:, None, None], (chosen.graphs, MOST, MOST))
    joined = drawn(chance, counts, draws)
    closed = np.einsum("gij,gji->gi", joined @ joined, joined)  # twice the triangles at each node
    degree = joined.sum(2)
    average = degree.sum(1, keepdims=True) / counts[:, None]
    roles = np.stack([degree > average, closed > 0, degree == 1], axis=2)[there]
    nodes = int(counts.sum())
    return many_graph_source(
        f"random-graphs{argument}",
        KINDS[chosen.target],
        np.stack([np.ones(nodes), draws.random(nodes)], axis=1),
        edges(joined, counts),
        counts,
        {"triangles": closed.sum(1)[:, None] / 6, "degrees": uneven, "roles": roles.astype(np.float32)}[chosen.target],
        split,
        {"classes": NAMES[chosen.target]},
    )


def drawn(chance: NDArray[np.float64], counts: NDArray[np.int64], draws: np.random.Generator) -> NDArray[np.float64]:
    """Symmetric adjacencies [graphs, most, most] of 0 and 1, of the probability of each pair of nodes; only pairs of
    the `counts` first nodes of a graph are joined, and no node to itself."""
    most = chance.shape[1]
    there = np.arange(most) < counts[:, None]
    pairs = np.triu(np.ones((most, most), bool), 1) & there[:, :, None] & there[:, None]
    one_way = (draws.random(chance.shape) < chance) & pairs
    return (one_way | one_way.transpose(0, 2, 1)).astype(np.float64)


def edges(joined: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Both directions of the edges [2, e] of adjacencies, among the nodes of all graphs."""
    graph, one, other = np.nonzero(joined)
    return np.stack([one, other]).astype(np.int64) + (np.cumsum(counts) - counts)[graph]
