"""Structural properties of directed acyclic graphs, as features that every search space has.

The properties are those from which "Experiments on Properties of Hidden Structures of Sparse Neural Networks" (Stier,
Darji and Granitzer, 2021) predicts accuracy, and a few more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROPERTIES = (
    "nodes",
    "edges",
    "density",  # edges of the nodes * (nodes - 1) / 2 that an acyclic graph can have
    "depth",  # edges on the longest path
    "degree-in-mean",
    "degree-in-max",
    "degree-in-variance",
    "degree-out-mean",
    "degree-out-max",
    "degree-out-variance",
    "distance-mean",  # of the pairs that are connected, directions ignored, as in all that follows up to clustering
    "diameter",
    "eccentricity-mean",
    "betweenness-mean",
    "betweenness-variance",
    "closeness-mean",
    "closeness-variance",
    "clustering",
    "log-paths",  # log(1 + paths from sources to sinks)
    "sources",
    "sinks",
)


def properties(nodes: int, edges: Sequence[tuple[int, int]]) -> NDArray[numpy.float64]:
    """`PROPERTIES` of a graph whose nodes are numbered in topological order: every edge leads to a larger number.

    Centralities are normalised as usual: betweenness by the pairs of other nodes, closeness by Wasserman and Faust's
    rule for graphs that are not connected. All are 0 for a graph without nodes.
    """
    if not nodes:
        return numpy.zeros(len(PROPERTIES))
    into = numpy.zeros(nodes)
    out = numpy.zeros(nodes)
    links = numpy.zeros((nodes, nodes))
    depth, paths = [0] * nodes, [0.0] * nodes
    for source, target in edges:
        into[target] += 1
        out[source] += 1
        links[source, target] = links[target, source] = 1
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    for node in range(nodes):
        paths[node] = 1.0 if into[node] == 0 else 0.0
    for source, target in sorted(edges):  # all edges into `source` come from smaller nodes: its count is complete
        paths[target] += paths[source]
    distance, counts = _shortest(links)
    reached = numpy.isfinite(distance)
    pairs = reached & (distance > 0)
    lengths = numpy.where(reached, distance, 0.0)
    between = _betweenness(distance, counts)
    others = pairs.sum(axis=1)
    total = lengths.sum(axis=1)
    closeness = numpy.where(total > 0, others / numpy.maximum(total, 1) * others / max(nodes - 1, 1), 0.0)
    degree = links.sum(axis=1)
    triangles = numpy.diagonal(links @ links @ links)
    clustering = numpy.where(degree > 1, triangles / numpy.maximum(degree * (degree - 1), 1), 0.0)
    return numpy.array(
        [
            nodes,
            len(edges),
            2 * len(edges) / (nodes * (nodes - 1)) if nodes > 1 else 0.0,
            max(depth),
            *(
                float(statistic)
                for degrees in (into, out)
                for statistic in (degrees.mean(), degrees.max(), degrees.var())
            ),
            lengths[pairs].mean() if pairs.any() else 0.0,
            lengths.max(),
            lengths.max(axis=1).mean(),
            between.mean(),
            between.var(),
            closeness.mean(),
            closeness.var(),
            clustering.mean(),
            numpy.log1p(sum(paths[node] for node in range(nodes) if out[node] == 0)),
            (into == 0).sum(),
            (out == 0).sum(),
        ]
    )


def _shortest(links: NDArray[numpy.float64]) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Lengths of the shortest paths between all nodes (infinite where there is none), and how many there are."""
    nodes = len(links)
    distance = numpy.full((nodes, nodes), numpy.inf)
    numpy.fill_diagonal(distance, 0)
    counts = numpy.eye(nodes)
    front = numpy.eye(nodes)
    for length in range(1, nodes):
        front = numpy.where(numpy.isinf(distance), front @ links, 0.0)
        if not front.any():
            break
        distance[front > 0] = length
        counts += front
    return distance, counts


def _betweenness(distance: NDArray[numpy.float64], counts: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The share of the shortest paths between other nodes that lead through each node, by pair of them (Freeman)."""
    nodes = len(distance)
    if nodes < 3:
        return numpy.zeros(nodes)
    on_path = distance[:, :, None] + distance[None, :, :] == distance[:, None, :]  # [from, through, to]
    on_path &= numpy.isfinite(distance)[:, None, :]
    share = on_path * counts[:, :, None] * counts[None, :, :] / numpy.maximum(counts, 1)[:, None, :]
    node = numpy.arange(nodes)
    share[node, node, :] = 0
    share[:, node, node] = 0
    return share.sum(axis=(0, 2)) / ((nodes - 1) * (nodes - 2))
