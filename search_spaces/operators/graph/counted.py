"""What operators cost, counted once for each size of a graph; torch is imported where something has to be counted."""

from __future__ import annotations

from functools import lru_cache

from nas_core.task import Task
from search_spaces.operators.operator import Operator

PLAIN = frozenset({"sum", "mean", "max"})  # aggregators without weights, one MAC per feature of a value


def mean_degree(task: Task) -> float:
    """Edges per node; 1 where the task does not say."""
    return 1.0 if not task.nodes or task.edges is None else task.edges / task.nodes


@lru_cache(maxsize=4096)
def operator_costs(
    operator: Operator, width: int, hidden: int, nodes: int, edges: int, edge_dim: int | None = None
) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a node operator from `width` to `hidden` features."""
    from search_spaces.operators.graph.made import step
    from search_spaces.operators.graph.sample import step_counts

    degree = edges / max(1, nodes)
    return step_counts(lambda: step(operator, width, hidden, edge_dim, degree), width, nodes, edges, edge_dim)


@lru_cache(maxsize=1024)
def aggregator_costs(aggregator: Operator, width: int, nodes: int, edges: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of an aggregator of a value `width` wide for every edge."""
    if plain(aggregator):
        return 0, edges * width
    from search_spaces.operators.graph.sample import aggregator_counts

    return aggregator_counts(aggregator, width, nodes, edges)


@lru_cache(maxsize=256)
def encoding_costs(encoding: Operator, nodes: int, edges: int) -> tuple[int, int, int]:
    """Features of an encoding, its parameters and its multiply-accumulates."""
    from search_spaces.operators.graph.sample import encoding_counts

    return encoding_counts(encoding, nodes, edges)


@lru_cache(maxsize=1024)
def rewiring_costs(rewiring: Operator, width: int, nodes: int, edges: int) -> tuple[int, int, int, int]:
    """Nodes and edges of what a rewiring makes of a graph, its parameters and its multiply-accumulates."""
    from search_spaces.operators.graph.sample import rewired_counts

    return rewired_counts(rewiring, width, nodes, edges)


@lru_cache(maxsize=1024)
def readout_costs(readout: Operator, width: int, nodes: int) -> tuple[int, int, int]:
    """Features of a graph that a readout makes of nodes `width` wide, its parameters and its multiply-accumulates."""
    if plain(readout):
        return width, 0, nodes * width
    from search_spaces.operators.graph.sample import readout_counts

    return readout_counts(readout, width, nodes)


def plain(aggregator: Operator) -> bool:
    """Whether it is a sum, a mean or a maximum of the catalogue, as an aggregator or as a readout."""
    return aggregator.label in PLAIN and not aggregator.own
