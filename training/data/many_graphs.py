"""Many graphs as plain arrays, one after another, split and checked, which `bind` puts on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import Task, graph_task
from training import tasks
from training.data.loading import DEFAULT, Loading
from training.data.source import public, split_into, to_floats, to_index
from training.data.split import TARGET_BINS, UNLABELLED, Parts, Split, split_hash, target_bins
from training.inputs.graphs import normalised
from training.inputs.many_graphs import ManyGraphInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

PER_BIN = 10


@dataclass(frozen=True, eq=False)
class ManyGraphSource:
    """Features [nodes, f] float32 and directed edges [2, e] int64 of all graphs, the nodes of one after those of
    another; `counts` [graphs] are their numbers of nodes, `parts` lists of graphs. Edges are in the order of their
    targets, and so are their features [e, k], where there are any.

    Targets are one per graph or one per node, as the task's level says: class numbers (int64; -1: none), several
    classes at once [n, k] (float32, 0 or 1), or numbers [n, k] in their own unit (float64).
    """

    reference: str
    task: Task
    split_hash: str
    features: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    edge_attr: NDArray[np.float32] | None
    counts: NDArray[np.int64]
    targets: NDArray[Any]
    parts: Parts
    inputs: ManyGraphInputs
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs; none where they are numbers."""
        return self.inputs.classes

    @property
    def sizes(self) -> Mapping[str, int]:
        """Graphs of each part, or nodes that have a label, as answers are for one or the other."""
        return {name: len(self.targets_of(part)) for name, part in self.parts.items()}

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """[graphs]: what parts have in equal shares: classes, bins of targets or of sizes."""
        return strata(self.targets, self.counts)

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """Samples per class for each part; none where answers are no single class."""
        if self.targets.dtype != np.int64:
            return {}
        counts = ((name, np.bincount(self.targets_of(part), minlength=self.task.outputs)) for name, part in self._parts)
        return {name: tuple(found.tolist()) for name, found in counts}

    @cached_property
    def edge_counts(self) -> NDArray[np.int64]:
        """[graphs]: edges of each."""
        graph_of = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(graph_of[self.edge_index[1]], minlength=len(self.counts))

    def targets_of(self, graphs: NDArray[np.int64]) -> NDArray[Any]:
        """Those of some graphs, or of their nodes, as far as these have a label."""
        if self.task.level == "graph":
            return self.targets[graphs]
        found = self.targets[rows_of(graphs, self.counts)]
        return found[found != UNLABELLED] if found.dtype == np.int64 else found

    @property
    def _parts(self) -> tuple[tuple[str, NDArray[np.int64]], ...]:
        return self.parts.items()

    def told(self, warnings: Sequence[str]) -> ManyGraphSource:
        """The same with further warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """Batches of graphs; augmentation and layout are for images."""
        from training.data.bound_graphs import BoundManyGraphs

        return BoundManyGraphs(self, device, loading)


def rows_of(graphs: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the nodes of some graphs, one graph after another, by the nodes of each."""
    starts, sizes = (np.cumsum(counts) - counts)[graphs], counts[graphs]
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)


def strata(targets: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[graphs]: classes of graphs, bins of their targets, or, where targets are of nodes, of the numbers of nodes."""
    if len(targets) == len(counts) and targets.dtype == np.int64:
        return targets
    values = targets.mean(axis=1) if len(targets) == len(counts) else counts
    # Of a bin of fewer graphs none might be left for a part.
    return target_bins(values.astype(np.float64), min(TARGET_BINS, len(counts) // PER_BIN))


def many_graph_source(
    reference: str,
    kind: str,
    features: NDArray[Any],
    edge_index: NDArray[Any],
    counts: NDArray[np.int64],
    targets: NDArray[Any],
    split: Split,
    inputs: Mapping[str, Any],
    *,
    edge_attr: NDArray[Any] | None = None,
    parts: Sequence[NDArray[Any] | None] = (None, None, None),
    warnings: Sequence[str] = (),
) -> ManyGraphSource:
    """Checked and split graphs for a kind of task. `features` [nodes, f] are as a file has them; `inputs` are fields of
    `ManyGraphInputs` that say what they are, of which `normalise` is done here, before the data are hashed. `targets`
    are those of `ManyGraphSource`, `parts` public lists of graphs as `graph_source` takes those of nodes.

    Raises UsageError for what cannot be learned from.
    """
    where = f"data '{reference}'"
    edge_index, order = to_edges(edge_index, counts, where)
    values = None if edge_attr is None else to_values(edge_attr, len(order), where)[order]
    how = inputs.get("normalise", "none")
    features = normalised(to_floats(features, "features", where), how)
    by = strata(targets, counts)
    names = ("train", "valid", "test")
    found = dict(zip(names, public(where, by, split, *parts, things="graphs"), strict=True))
    divided = split_into(where, by, split, **found, classes=by is targets)
    said = {
        **inputs,
        "kind": kind,
        "features": features.shape[1],
        "edge_features": None if values is None else values.shape[1],
    }
    known = tasks.find(kind)
    if targets.dtype == np.float64:
        mean, deviation = targets[divided.train].mean(), targets[divided.train].std()
        said |= {"target_mean": float(mean), "target_deviation": float(deviation) or 1.0}
    outputs = targets.shape[1] if targets.ndim == 2 else len(said["classes"])
    task = graph_task(
        features.shape[1],
        outputs,
        round(float(counts.mean())),
        round(edge_index.shape[1] / len(counts)),
        kind=kind,
        level=known.example.level,
        edge_features=said["edge_features"],
        counts=True,
        metric=known.metrics[0].name,
    )
    hashed = [array for array in (features, edge_index, counts, values) if array is not None]
    name = split_hash(targets, divided, *hashed)
    about = known.Inputs(**said)
    assert isinstance(about, ManyGraphInputs)
    made = ManyGraphSource(
        reference, task, name, features, edge_index, values, counts, targets, divided, about, tuple(warnings)
    )
    for part, size in made.sizes.items():
        if not size:
            raise UsageError(f"{where}: no node of the {part} graphs has a label")
    return made


def counts_of(graph_id: NDArray[Any], graphs: int | None, where: str) -> NDArray[np.int64]:
    """Nodes of each graph [graphs], of the number of the graph of each node [nodes], which rises from 0.

    Raises UsageError where nodes of a graph do not follow one another, or a graph has none.
    """
    if graph_id.ndim != 1 or graph_id.dtype.kind not in "iu" or not len(graph_id):
        raise UsageError(f"{where}: graph_id is {graph_id.dtype} {graph_id.shape}; needed is a whole number per node")
    graph_id = graph_id.astype(np.int64)
    falls = np.diff(graph_id) < 0
    if falls.any():
        node = int(np.argmax(falls)) + 1
        raise UsageError(
            f"{where}: graph_id is not sorted: node {node} is of graph {graph_id[node]}, the one before it of graph "
            f"{graph_id[node - 1]}; the nodes of a graph follow one another"
        )
    if graph_id[0] < 0:
        raise UsageError(f"{where}: graph_id holds {graph_id[0]}; graphs are numbered from 0")
    last = int(graph_id[-1])
    if graphs is not None and last >= graphs:
        raise UsageError(f"{where}: graph_id names graph {last}; there are targets of {graphs} graphs, numbered from 0")
    counts = np.bincount(graph_id[: len(graph_id)], minlength=graphs or 0)
    if not counts.all():
        raise UsageError(
            f"{where}: graph {int(np.argmin(counts != 0))} has no node; graphs are numbered from 0, and each has nodes"
        )
    return counts


def to_edges(
    edge_index: NDArray[Any], counts: NDArray[np.int64], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges [2, e] in the order of their targets, and which of the given ones each is. Raises UsageError for what is no
    list of edges, or goes from one graph to another."""
    if edge_index.ndim != 2 or len(edge_index) != 2:
        raise UsageError(
            f"{where}: edge_index is {edge_index.dtype} {edge_index.shape}; needed are integers [2, edges]"
        )
    edge_index = to_index(edge_index, int(counts.sum()), "edge_index", where)
    graph_of = np.repeat(np.arange(len(counts)), counts)
    source, target = graph_of[edge_index]
    if (source != target).any():
        edge = int(np.argmax(source != target))
        raise UsageError(f"{where}: edge {edge} goes from graph {source[edge]} to graph {target[edge]}")
    order = np.argsort(edge_index[1], kind="stable")
    return np.ascontiguousarray(edge_index[:, order]), order


def to_values(edge_attr: NDArray[Any], edges: int, where: str) -> NDArray[np.float32]:
    """Features of edges [e, k]; one number per edge is a column. Raises UsageError for others."""
    values = edge_attr[:, None] if edge_attr.ndim == 1 else edge_attr
    if values.ndim != 2 or len(values) != edges or not values.shape[1]:
        raise UsageError(f"{where}: edge_attr has shape {edge_attr.shape}; needed are values of the {edges} edges")
    return to_floats(values, "edge_attr", where)
