"""Which class of graph networks is called with the tensors of a task (`nas_core.task.Graphs`)."""

from __future__ import annotations

from typing import TypeVar

from nas_core.task import Graphs

T = TypeVar("T")


def by_inputs(graphs: Graphs, of_one: tuple[T, T], of_many: tuple[T, T], of_pairs: tuple[T, T]) -> T:
    """That for one graph, for several (`counts`), or for `pairs` of nodes; of each the one for edges without features,
    then the one for edges that have some."""
    plain, with_edges = of_pairs if graphs.pairs else of_many if graphs.counts else of_one
    return plain if graphs.edge_features is None else with_edges
