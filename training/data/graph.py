"""`graph:FILE`: one graph with labelled nodes, or many graphs, as numpy arrays (keys in docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import EDGE_CLASSIFICATION, LINK_PREDICTION, NODE_CLASSIFICATION, NODE_REGRESSION
from training.data.edges_of_many import edges_of_many
from training.data.files import arrays, file_of, texts, unused
from training.data.graph_arrays import KEYS as MANY
from training.data.graph_arrays import TARGETS, GraphOptions, many_graphs
from training.data.labels import is_one_hot
from training.data.many_graphs import ManyGraphSource
from training.data.masks import LISTS, MASKS, public_parts
from training.data.node_numbers import NodeNumberSource, node_number_source
from training.data.pair_source import EdgeSource, LinkSource, edge_source, link_source
from training.data.reference import options
from training.data.source import GraphSource, graph_source
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "graph:FILE, where FILE holds the arrays x, y and edge_index"
SPARSE = ("x_indptr", "x_indices", "x_data", "x_shape")
PAIRS = ("train_pairs", "valid_pairs", "test_pairs")
KEYS: Mapping[str, tuple[str, ...]] = {
    NODE_CLASSIFICATION: ("x", *SPARSE, "y", "edge_index", *LISTS, *MASKS, "classes", "feature_names"),
    EDGE_CLASSIFICATION: (
        *("x", *SPARSE, "edge_index", "edge_attr", "edge_y", *LISTS, *MASKS),
        *("classes", "feature_names"),
    ),
    NODE_REGRESSION: ("x", *SPARSE, "y", "edge_index", *LISTS, *MASKS, "feature_names"),
    LINK_PREDICTION: ("x", *SPARSE, "edge_index", "edge_attr", *PAIRS, "feature_names"),
}
"""What is read of a file of one graph for each kind of task."""
_ALL = tuple(dict.fromkeys(key for keys in KEYS.values() for key in keys))


def load(argument: str, split: Split) -> GraphSource | NodeNumberSource | LinkSource | EdgeSource | ManyGraphSource:
    """Features dense (`x`) or in compressed rows (`x_indptr`, ...), labels, `edge_index`, public parts; many graphs
    where there is a `graph_id`, of whose edges classes are learned where nothing else has targets."""
    where, chosen = options("graph", argument, GraphOptions)
    path = file_of("graph", where, EXAMPLE)
    reference, found = f"graph:{argument}", arrays(path, ("edge_index",), tuple(dict.fromkeys((*_ALL, *MANY))))
    names = {"classes": texts(path, "classes", found), "feature_names": texts(path, "feature_names", found)}
    if "graph_id" in found:
        of_edges = "edge_y" in found and not any(key in found for key in TARGETS)
        if chosen.task == EDGE_CLASSIFICATION if chosen.task is not None else of_edges:
            if "edge_y" not in found:
                raise UsageError(f"{path}: has no 'edge_y', of which the classes of edges are learned")
            told = unused(path, ("graph_id", *KEYS[EDGE_CLASSIFICATION]))
            return edges_of_many(
                reference, path, features_of(path, found), found, chosen, split, **names, warnings=told
            )
        if chosen.task is not None:
            raise UsageError(f"{path}: task={chosen.task} is for files of one graph, and this one holds a graph_id")
        if any(key in found for key in SPARSE):
            found["x"] = features_of(path, found)
        told = unused(path, (*MANY, *SPARSE))
        return many_graphs(reference, path, found, chosen, split, **names, warnings=told)
    task = chosen.task or usual_task(found)
    others = [name for name in found if name in _ALL and name not in KEYS[task]]
    told = [*unused(path, _ALL), *([f"not used for {task}: {', '.join(others)}"] if others else [])]
    given = {name: found[name] for name in found if name in KEYS[task]}
    return one_graph(task, reference, path, given, chosen, split, **names, warnings=told)


def usual_task(found: Mapping[str, NDArray[Any]]) -> str:
    """What is learned of one graph where nothing says so: classes of edges where these alone have labels; of nodes
    numbers where they are real, else classes."""
    if "y" not in found and "edge_y" in found:
        return EDGE_CLASSIFICATION
    real = "y" in found and found["y"].dtype.kind == "f" and not is_one_hot(found["y"])
    return NODE_REGRESSION if real else NODE_CLASSIFICATION


def one_graph(
    task: str,
    reference: str,
    path: Path | str,
    found: Mapping[str, NDArray[Any]],
    chosen: GraphOptions,
    split: Split,
    *,
    classes: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> GraphSource | NodeNumberSource | LinkSource | EdgeSource:
    """One graph of the arrays `found` under the `KEYS` of a kind of task. Raises UsageError for what cannot be learned
    from."""
    if chosen.features is not None:
        raise UsageError(f"{path}: ?features= is for data sets of many graphs (in a file: with a graph_id)")
    if chosen.edge_attr is not None and "edge_attr" not in KEYS[task]:
        raise UsageError(f"{path}: ?edge_attr= is for links and edges, and for many graphs; {task} reads none")
    features, edge_index = features_of(path, found), found["edge_index"]
    edge_attr = None if chosen.edge_attr == "drop" else found.get("edge_attr")
    alike: dict[str, Any] = {"feature_names": feature_names, "normalise": chosen.normalise}
    if task == LINK_PREDICTION:
        for option in ("split", "labels"):
            if getattr(chosen, option) is not None:
                raise UsageError(f"{path}: {option}={getattr(chosen, option)} is for graphs with labels, not for links")
        alike |= {part: found.get(key) for part, key in zip(("train", "valid", "test"), PAIRS, strict=True)}
        return link_source(reference, features, edge_index, split, edge_attr=edge_attr, warnings=warnings, **alike)
    key, thing = ("edge_y", "edge") if task == EDGE_CLASSIFICATION else ("y", "node")
    if key not in found:
        raise UsageError(
            f"{path}: has no '{key}' (needed: y of nodes, or edge_y of edges; of many graphs also graph_id; "
            f"?task={LINK_PREDICTION} needs none)"
        )
    labels = found[key]
    (train, valid, test), told = public_parts(str(path), found, len(labels) if labels.ndim else 0, chosen.split, thing)
    alike |= {"train": train, "valid": valid, "test": test, "warnings": [*warnings, *told]}
    if task == NODE_REGRESSION:
        if chosen.labels is not None:
            raise UsageError(f"{path}: labels={chosen.labels} is for classes, and y are numbers")
        return node_number_source(reference, features, labels, edge_index, split, **alike)
    alike |= {"classes": classes, "renumber": chosen.labels == "renumber"}
    if task == EDGE_CLASSIFICATION:
        return edge_source(reference, features, labels, edge_index, split, edge_attr=edge_attr, **alike)
    return graph_source(reference, features, labels, edge_index, split, **alike)


def features_of(path: Path | str, found: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The features of such a file, dense. Raises UsageError where they are given twice, not at all, or wrongly."""
    if not any(key in found for key in ("x", *SPARSE)):
        raise UsageError(
            f"{path}: its nodes have no features; save some as x [nodes, features], such as their degrees, "
            "np.bincount(edge_index[1], minlength=nodes)[:, None], or a constant, np.ones((nodes, 1))"
        )
    if ("x" in found) == any(key in found for key in SPARSE):
        raise UsageError(f"{path}: features are either x or {', '.join(SPARSE)}")
    return found["x"] if "x" in found else _dense(path, found)


def _dense(path: Path | str, found: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    missing = [key for key in SPARSE if key not in found]
    if missing:
        raise UsageError(f"{path}: has no '{missing[0]}' (features in compressed rows need {', '.join(SPARSE)})")
    indptr, indices, data, shape = (found[key] for key in SPARSE)
    if any(part.dtype.kind not in "iu" for part in (indptr, indices, shape)):
        raise UsageError(f"{path}: x_indptr, x_indices and x_shape need integers")
    if shape.shape != (2,):
        raise UsageError(f"{path}: x_shape holds {shape.size} numbers; needed are nodes and features")
    rows, columns = (int(size) for size in shape)
    if any(part.ndim != 1 for part in (indptr, indices, data)) or not _consistent(indptr, indices, data, rows, columns):
        raise UsageError(f"{path}: x_indptr, x_indices, x_data do not describe a matrix of {rows} x {columns}")
    row_of = np.repeat(np.arange(rows), np.diff(indptr.astype(np.int64)).tolist())
    dense = np.zeros((rows, columns), dtype=np.float32)
    # Entries that occur twice are summed, as sparse matrices are read everywhere.
    np.add.at(dense, (row_of, indices), data.astype(np.float32))
    return dense


def _consistent(indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any], rows: int, columns: int) -> bool:
    if len(indptr) != rows + 1 or indptr[0] != 0 or (np.diff(indptr.astype(np.int64)) < 0).any():
        return False
    if not indptr[-1] == len(indices) == len(data):
        return False
    return len(indices) == 0 or bool(indices.min() >= 0 and indices.max() < columns)
