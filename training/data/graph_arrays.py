"""Many graphs as arrays that belong together, of an npz file or of PyTorch Geometric (keys in docs/data.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.task import (
    GRAPH_CLASSIFICATION,
    GRAPH_REGRESSION,
    INDUCTIVE_NODE_CLASSIFICATION,
    MULTILABEL_NODE_CLASSIFICATION,
)
from training.data.labels import absent, class_labels
from training.data.many_graphs import ManyGraphSource, counts_of, many_graph_source, to_edges
from training.data.masks import LISTS, MASKS, public_parts
from training.data.split import Split
from training.inputs.graphs import Normalise
from training.inputs.many_graphs import ManyGraphInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DEGREES = 64
"""Columns for the in-degrees of nodes at most: the last one stands for all larger."""


class GraphOptions(Config):
    """What may follow the file, as in `graph:FILE?normalise=rows&split=1`."""

    normalise: Normalise = Field(default="none", description="rows: divide each node's features by their sum")
    split: int | None = Field(default=None, ge=0, description="column of masks that hold several public splits")
    labels: Literal["renumber"] | None = Field(default=None, description="number the labels that occur from 0")
    edge_attr: Literal["drop"] | None = Field(default=None, description="drop: features of edges are left out")
    task: Literal["node-classification", "node-regression", "edge-classification", "link-prediction"] | None = Field(
        default=None,
        description="of one graph: classes or numbers of its nodes (y), classes of its edges, its links",
    )
    features: Literal["degree", "constant"] | None = Field(
        default=None, description="of many graphs what is added to the features: the in-degree, one-hot, or a 1"
    )


@dataclass(frozen=True)
class Targets:
    """What is learned of many graphs: targets as `ManyGraphSource` has them, names of the classes, what to tell."""

    kind: str
    values: NDArray[Any]
    classes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gaps: tuple[int, ...] = ()


def graph_labels(labels: NDArray[Any], things: str, where: str, classes: Sequence[str], renumber: bool) -> Targets:
    """A class for each graph."""
    if labels.dtype.kind == "f" and labels.ndim == 1:
        raise UsageError(f"{where}: graph_label is {labels.dtype}; numbers that are predicted are graph_y")
    read = class_labels(labels, len(labels), things, where, classes=classes, renumber=renumber)
    names = read.classes or tuple(map(str, range(read.outputs)))
    return Targets(GRAPH_CLASSIFICATION, read.numbers, names, read.warnings, read.gaps)


def graph_numbers(values: NDArray[Any], things: str, where: str, classes: Sequence[str], renumber: bool) -> Targets:
    """One number or several for each graph."""
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf":
        raise UsageError(f"{where}: graph_y is {values.dtype} {values.shape}; needed are numbers for each graph")
    if classes or renumber:
        raise UsageError(f"{where}: graph_y holds numbers; leave out {'classes' if classes else '?labels=renumber'}")
    if not np.isfinite(values).all():
        raise UsageError(f"{where}: graph_y holds NaN or infinite values")
    return Targets(GRAPH_REGRESSION, values.reshape(len(values), -1).astype(np.float64))


def node_labels(labels: NDArray[Any], things: str, where: str, classes: Sequence[str], renumber: bool) -> Targets:
    """A class for each node, or, of rows of 0 and 1 that are not one-hot, any number of labels."""
    rows = labels.ndim == 2 and labels.shape[1] > 1
    if rows and np.isin(labels, (0, 1)).all() and ((labels == 1).sum(axis=1) != 1).any():
        if classes and len(classes) != labels.shape[1]:
            raise UsageError(f"{where}: y has {labels.shape[1]} labels; {len(classes)} are named")
        names = tuple(classes) or tuple(map(str, range(labels.shape[1])))
        return Targets(MULTILABEL_NODE_CLASSIFICATION, labels.astype(np.float32), names)
    read = class_labels(labels, len(labels), things, where, classes=classes, unlabelled=True, renumber=renumber)
    names = read.classes or tuple(map(str, range(read.outputs)))
    return Targets(INDUCTIVE_NODE_CLASSIFICATION, read.numbers, names, read.warnings, read.gaps)


Read = Callable[[Any, str, str, Sequence[str], bool], Targets]
TARGETS: Mapping[str, tuple[str, Read]] = {
    "graph_label": ("graphs", graph_labels),
    "graph_y": ("graphs", graph_numbers),
    "y": ("nodes", node_labels),
}
"""Keys of targets: what each is one of, and how it is read."""

KEYS = ("graph_id", "x", "node_tag", "edge_index", "edge_attr", *TARGETS, *LISTS, *MASKS, "classes", "feature_names")


def many_graphs(
    reference: str,
    path: Path | str,
    found: Mapping[str, NDArray[Any]],
    chosen: GraphOptions,
    split: Split,
    *,
    classes: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> ManyGraphSource:
    """A data set of the arrays `found` under `KEYS`, of which `graph_id` and `edge_index` are there.

    Raises UsageError for what cannot be learned from.
    """
    where = str(path)
    given = [key for key in TARGETS if key in found]
    if len(given) != 1:
        what = f"holds {' and '.join(given)}" if given else "has no targets"
        raise UsageError(f"{where}: {what}; one of {', '.join(TARGETS)} is what is learned of many graphs")
    things, read = TARGETS[given[0]]
    graphs = len(found[given[0]]) if things == "graphs" and found[given[0]].ndim else None
    counts = counts_of(found["graph_id"], graphs, where)
    if things == "nodes" and found[given[0]].shape[:1] != (counts.sum(),):
        raise UsageError(f"{where}: y has shape {found[given[0]].shape}; graph_id has {counts.sum()} nodes")
    targets = read(found[given[0]], things, where, classes, chosen.labels == "renumber")
    edge_index, _ = to_edges(found["edge_index"], counts, where)
    features, said = features_of({**found, "edge_index": edge_index}, int(counts.sum()), chosen, where)
    if feature_names and len(feature_names) != len(features[0]):
        raise UsageError(f"{where}: {len(feature_names)} feature names for {len(features[0])} features")
    parts, told = public_parts(where, found, len(counts), chosen.split, "graph")
    source = many_graph_source(
        *(reference, targets.kind, features, found["edge_index"], counts, targets.values, split),
        {**said, "classes": targets.classes, "feature_names": tuple(feature_names)},
        edge_attr=None if chosen.edge_attr == "drop" else found.get("edge_attr"),
        parts=parts,
        warnings=[*warnings, *told, *targets.warnings],
    )
    counted = source.class_counts
    missing = absent(counted, targets.classes, targets.gaps) if counted else []
    return source if not missing else source.told(missing)


def features_of(
    found: Mapping[str, NDArray[Any]], nodes: int, chosen: GraphOptions, where: str
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Features [nodes, f] of what arrays hold, and what is said of them (fields of `ManyGraphInputs`).

    Raises UsageError where there are none, or of another shape.
    """
    x, tags, edge_index = found.get("x"), found.get("node_tag"), found["edge_index"]
    if x is None and tags is None and chosen.features is None:
        raise UsageError(
            f"{where}: its nodes have no features (x, or node_tag); ?features=degree adds their in-degrees, one-hot, "
            "?features=constant a 1"
        )
    if x is not None and (x.ndim != 2 or len(x) != nodes):
        raise UsageError(
            f"{where}: features have shape {x.shape}; needed are [{nodes}, features], as graph_id has nodes"
        )
    if tags is not None and (tags.shape != (nodes,) or tags.dtype.kind not in "iu"):
        raise UsageError(f"{where}: node_tag is {tags.dtype} {tags.shape}; needed are {nodes} whole numbers")
    said: dict[str, Any] = {"normalise": chosen.normalise, "constant": chosen.features == "constant"}
    if tags is not None:
        said["tags"] = tuple(np.unique(tags).tolist())
    if chosen.features == "degree":
        degree = np.bincount(edge_index[1], minlength=nodes) if edge_index.size else np.zeros(1, np.int64)
        said["degrees"] = min(int(degree.max()) + 1, MOST_DEGREES)
    width = (0 if x is None else x.shape[1]) + len(said.get("tags", ())) + said.get("degrees", 0) + said["constant"]
    made = ManyGraphInputs(kind=GRAPH_CLASSIFICATION, features=width, **said)
    return made.encode(x, tags, edge_index, nodes), said
