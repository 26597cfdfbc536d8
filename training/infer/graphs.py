"""Graphs for a network: features and edges of `graph:FILE`; labels and parts of the file are not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.data.files import arrays, file_of
from training.data.graph import EXAMPLE, SPARSE, features_of
from training.data.many_graphs import counts_of, to_edges, to_values
from training.data.source import to_floats
from training.inputs.graphs import GraphInputs
from training.inputs.many_graphs import ManyGraphInputs
from training.inputs.samples import Samples
from training.tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_many(inputs: ManyGraphInputs, argument: str) -> Samples:
    """The graphs of `graph:FILE`, or the one where the file has no `graph_id`; one sample for each, or for each node.

    Raises NotFoundError, or UsageError naming file and fault.
    """
    path = path_of(argument, "answers for graphs")
    found = arrays(path, ("edge_index",), ("x", *SPARSE, "edge_index", "graph_id", "node_tag", "edge_attr"))
    where = str(path)
    x, tags = features_of(path, found) if inputs.own else None, found.get("node_tag")
    if "graph_id" in found:
        counts = counts_of(found["graph_id"], None, where)
    else:
        known = [len(one) for one in (x, tags) if one is not None and one.ndim]
        if not known:
            raise UsageError(f"{where}: has no graph_id, which says how many nodes there are")
        counts = np.array(known[:1])
    edge_index, order = to_edges(found["edge_index"], counts, where)
    try:
        features = inputs.encode(x, tags, edge_index, int(counts.sum()))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    tensors: list[NDArray[Any]] = [to_floats(features, "features", where), edge_index]
    if inputs.edge_features is not None:
        if "edge_attr" not in found:
            raise UsageError(f"{where}: has no edge_attr; the network takes [edges, {inputs.edge_features}]")
        values = to_values(found["edge_attr"], len(order), where)[order]
        if values.shape[1] != inputs.edge_features:
            raise UsageError(
                f"{where}: edge_attr has shape {values.shape}; the network takes [edges, {inputs.edge_features}]"
            )
        tensors.append(values)
    level = find(inputs.kind).example.level
    names = tuple(f"{path}:{number}" for number in range(len(counts) if level == "graph" else len(features)))
    return Samples(names, (*tensors, counts), apart=False)


def path_of(argument: str, what: str) -> Path:
    """The file of `graph:FILE`. Raises UsageError for an argument that is something else, NotFoundError."""
    scheme, colon, rest = argument.partition(":")
    if not colon or scheme != "graph":
        raise UsageError(f"'{argument}' is no graph, but the network {what}; give graph:FILE")
    return file_of("graph", rest, EXAMPLE)


def read(inputs: GraphInputs, argument: str) -> Samples:
    """Raises NotFoundError, or UsageError naming file and fault."""
    path = path_of(argument, "answers for the nodes of one")
    found = arrays(path, ("edge_index",), ("x", *SPARSE, "edge_index"))
    features, edges = features_of(path, found), found["edge_index"]
    if features.ndim != 2 or features.shape[1] != inputs.features:
        raise UsageError(f"{path}: features have shape {features.shape}; the network takes [nodes, {inputs.features}]")
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu":
        raise UsageError(f"{path}: edge_index is {edges.dtype} {edges.shape}; needed are integers [2, edges]")
    if edges.size and (edges.min() < 0 or edges.max() >= len(features)):
        raise UsageError(f"{path}: edge_index names nodes {edges.min()} to {edges.max()} of {len(features)}")
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise UsageError(f"{path}: features hold NaN or infinite values")
    names = tuple(f"{path}:{node}" for node in range(len(features)))
    return Samples(names, (features, edges.astype(np.int64)), apart=False)
