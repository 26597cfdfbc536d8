"""A graph and pairs of its nodes for a network: x, edge_index and pairs of `graph:FILE`."""

from __future__ import annotations

import numpy as np

from nas_core.errors import UsageError
from training.data.files import arrays
from training.data.graph import SPARSE, features_of
from training.data.many_graphs import to_values
from training.data.pair_source import sorted_edges
from training.data.source import checked_graph, to_index
from training.infer.graphs import path_of
from training.inputs.pairs import PairInputs
from training.inputs.samples import Samples


def read(inputs: PairInputs, argument: str) -> Samples:
    """One sample for each pair, called by its nodes. Raises NotFoundError, or UsageError naming file and fault."""
    path = path_of(argument, "answers for pairs of nodes of a graph")
    found = arrays(path, ("edge_index", "pairs"), ("x", *SPARSE, "edge_index", "edge_attr", "pairs"))
    where = str(path)
    features, edges = checked_graph(where, features_of(path, found), found["edge_index"], (), "none")
    if features.shape[1] != inputs.features:
        raise UsageError(f"{where}: features have shape {features.shape}; the network takes [nodes, {inputs.features}]")
    pairs = found["pairs"]
    if pairs.ndim != 2 or len(pairs) != 2 or not pairs.shape[1]:
        raise UsageError(f"{where}: pairs have shape {pairs.shape}; needed are nodes [2, pairs]")
    pairs = to_index(pairs, len(features), "pairs", where)
    values = None
    if inputs.edge_features is not None:
        if "edge_attr" not in found:
            raise UsageError(f"{where}: has no edge_attr; the network takes [edges, {inputs.edge_features}]")
        values = to_values(found["edge_attr"], edges.shape[1], where)
        if values.shape[1] != inputs.edge_features:
            raise UsageError(
                f"{where}: edge_attr has shape {values.shape}; the network takes [edges, {inputs.edge_features}]"
            )
    edges, values = sorted_edges(edges, values)
    names = tuple(f"{path}:{source}-{target}" for source, target in pairs.T.tolist())
    tensors = (features, edges, pairs) if values is None else (features, edges, values, pairs)
    return Samples(names, tuple(map(np.ascontiguousarray, tensors)), apart=False)
