"""A graph for a network: features and edges of `graph:FILE`; labels and parts of the file are not looked at."""

from __future__ import annotations

import numpy as np

from nas_core.errors import UsageError
from training.data.files import arrays, file_of
from training.data.graph import EXAMPLE, SPARSE, features_of
from training.inputs.graphs import GraphInputs
from training.inputs.samples import Samples


def read(inputs: GraphInputs, argument: str) -> Samples:
    """Raises NotFoundError, or UsageError naming file and fault."""
    scheme, colon, rest = argument.partition(":")
    if not colon or scheme != "graph":
        raise UsageError(f"'{argument}' is no graph, but the network classifies the nodes of one; give graph:FILE")
    path = file_of("graph", rest, EXAMPLE)
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
