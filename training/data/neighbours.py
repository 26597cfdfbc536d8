"""Samples of a graph that is too large for one batch: nodes, and so many neighbours of each, hop by hop (Hamilton, Ying
and Leskovec, "Inductive Representation Learning on Large Graphs", NIPS 2017, section 3.1 and appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

ALL = -1


@dataclass(frozen=True, eq=False)
class Sample:
    """Nodes [n] by their numbers in the graph, the seeds first; directed edges [2, m] between their places.

    Of each node [n] also the edges without self-loops that end at it and that leave it, and its self-loops: of those
    of the last hop as many as would have been drawn. With all neighbours these are the numbers of the whole graph.
    """

    nodes: Numbers
    edge_index: Numbers
    ending: Numbers
    leaving: Numbers
    loops: Numbers


class Neighbours:
    """Draws from directed edges [2, e] of a graph with so many nodes. Nothing but numpy is needed."""

    def __init__(self, edge_index: Numbers, nodes: int) -> None:
        order = np.argsort(edge_index[1], kind="stable")
        self._source, target = edge_index[0][order], edge_index[1][order]
        self._starts = np.searchsorted(target, np.arange(nodes + 1))
        self._place = np.full(nodes, -1)
        self._ending, self._leaving, self._loops = _counted(edge_index, nodes)

    def sample(self, seeds: Numbers, fan_out: Sequence[int], draws: Generator) -> Sample:
        """The seeds, and for every node that was met at a hop up to `fan_out[hop]` of the edges that end at it, drawn
        without replacement; all of them where there are no more. Edges of one target keep their order. A node that is
        met again is the same one."""
        place = self._place
        nodes: list[Numbers] = [seeds]
        edges: list[Numbers] = []
        asked: list[Numbers] = []
        place[seeds] = np.arange(len(seeds))
        known, reached = len(seeds), seeds
        for most in fan_out:
            chosen, target = self._edges_into(reached, most, draws)
            source = self._source[chosen]
            asked.append(np.full(len(reached), most))
            new = np.unique(source[place[source] < 0])
            place[new] = known + np.arange(len(new))
            edges.append(np.stack([place[source], place[target]]))
            nodes.append(new)
            known, reached = known + len(new), new
        asked.append(np.full(len(reached), fan_out[-1]))
        found, edge_index, most_of = np.concatenate(nodes), np.concatenate(edges, axis=1), np.concatenate(asked)
        place[found] = -1
        inner = known - len(reached)
        most_of = np.where(most_of == ALL, len(place), most_of)
        ending, _, loops = _counted(edge_index, known)
        ending[inner:] = np.minimum(self._ending[reached], most_of[inner:])
        loops[inner:] = self._loops[reached]
        return Sample(found, edge_index, ending, np.minimum(self._leaving[found], most_of), loops)

    def _edges_into(self, nodes: Numbers, most: int, draws: Generator) -> tuple[Numbers, Numbers]:
        """Places of drawn edges, and the nodes they end at, node by node."""
        begins, counts = self._starts[nodes], np.diff(self._starts)[nodes]
        many = counts > most if most != ALL else np.zeros(len(nodes), dtype=bool)
        taken = np.where(many, most, counts)
        ends = np.cumsum(taken)
        target = np.repeat(nodes, taken)
        within = np.arange(len(target)) - np.repeat(ends - taken, taken)
        if many.any():
            within[np.repeat(many, taken)] = _distinct(counts[many], most, draws).ravel()
        return np.repeat(begins, taken) + within, target


def _counted(edge_index: Numbers, nodes: int) -> tuple[Numbers, Numbers, Numbers]:
    """Of each node [nodes] the edges without self-loops that end at it, those that leave it, and its self-loops."""
    source, target = edge_index
    loop = source == target
    ending, leaving, loops = (
        np.bincount(each, minlength=nodes) for each in (target[~loop], source[~loop], target[loop])
    )
    return ending, leaving, loops


def _distinct(counts: Numbers, many: int, draws: Generator) -> Numbers:
    """For each of `counts` [n], all above `many`, so many different numbers below it, ascending [n, many]: Floyd's
    algorithm (Bentley, "Programming pearls", CACM 30(9), 1987), all rows at once."""
    found = np.empty((len(counts), many), dtype=np.int64)
    for place in range(many):
        last = counts - many + place
        drawn = draws.integers(0, last + 1)
        seen = (found[:, :place] == drawn[:, None]).any(axis=1)
        found[:, place] = np.where(seen, last, drawn)
    return np.sort(found, axis=1)
