"""Edges with classes of many graphs: all of them are one graph, in which no edge leads from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.data.graph_arrays import GraphOptions
from training.data.labels import class_labels
from training.data.many_graphs import counts_of, strata, to_edges
from training.data.masks import public_parts
from training.data.pair_source import PART_NAMES, EdgeSource, edge_source
from training.data.source import public, split_into
from training.data.split import UNLABELLED, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray


def edges_of_many(
    reference: str,
    path: Path | str,
    features: NDArray[Any],
    found: Mapping[str, NDArray[Any]],
    chosen: GraphOptions,
    split: Split,
    *,
    classes: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> EdgeSource:
    """Classes `edge_y` of the edges of all graphs, whose nodes `graph_id` tells apart. Parts are of whole graphs,
    public ones or drawn by their sizes. Raises UsageError for what cannot be learned from."""
    where = str(path)
    if chosen.features is not None:
        raise UsageError(f"{where}: ?features= is for graphs and their nodes; save features of the nodes as x")
    counts, edge_index = counts_of(found["graph_id"], None, where), found["edge_index"]
    to_edges(edge_index, counts, where)  # which says what is wrong with them
    read = class_labels(
        *(found["edge_y"], edge_index.shape[1], "edges", where),
        classes=classes,
        unlabelled=True,
        renumber=chosen.labels == "renumber",
    )
    lists, told = public_parts(where, found, len(counts), chosen.split, "graph")
    by = strata(counts[:, None].astype(np.float64), counts)
    given = dict(zip(PART_NAMES, public(where, by, split, *lists, things="graphs"), strict=True))
    divided = split_into(where, by, split, **given, classes=False)
    of_edge = np.repeat(np.arange(len(counts)), counts)[edge_index[1]]
    known = read.numbers != UNLABELLED
    parts = {name: np.flatnonzero(np.isin(of_edge, graphs) & known) for name, graphs in divided.items()}
    for name, edges in parts.items():
        if not len(edges):
            raise UsageError(f"{where}: no edge of the {name} graphs has a label")
    return edge_source(
        *(reference, features, found["edge_y"], edge_index, Split()),
        edge_attr=None if chosen.edge_attr == "drop" else found.get("edge_attr"),
        classes=classes,
        feature_names=feature_names,
        normalise=chosen.normalise,
        renumber=chosen.labels == "renumber",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        warnings=[*warnings, *told],
    )
