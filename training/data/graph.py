"""`graph:FILE`: one graph with labelled nodes, or many graphs, as numpy arrays (keys in docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.data.files import arrays, file_of, texts, unused
from training.data.graph_arrays import KEYS as MANY
from training.data.graph_arrays import GraphOptions, many_graphs
from training.data.many_graphs import ManyGraphSource
from training.data.masks import LISTS, MASKS, public_parts
from training.data.reference import options
from training.data.source import GraphSource, graph_source
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "graph:FILE, where FILE holds the arrays x, y and edge_index"
SPARSE = ("x_indptr", "x_indices", "x_data", "x_shape")
KEYS = ("x", *SPARSE, "y", "edge_index", *LISTS, *MASKS, "classes", "feature_names")


def load(argument: str, split: Split) -> GraphSource | ManyGraphSource:
    """Features dense (`x`) or in compressed rows (`x_indptr`, ...), labels, `edge_index`, public parts; many graphs
    where there is a `graph_id`."""
    where, chosen = options("graph", argument, GraphOptions)
    path = file_of("graph", where, EXAMPLE)
    reference, found = f"graph:{argument}", arrays(path, ("edge_index",), tuple(dict.fromkeys((*KEYS, *MANY))))
    names = {"classes": texts(path, "classes", found), "feature_names": texts(path, "feature_names", found)}
    if "graph_id" in found:
        if any(key in found for key in SPARSE):
            found["x"] = features_of(path, found)
        told = unused(path, (*MANY, *SPARSE))
        return many_graphs(reference, path, found, chosen, split, **names, warnings=told)
    return one_graph(reference, path, found, chosen, split, **names, warnings=unused(path, KEYS))


def one_graph(
    reference: str,
    path: Path,
    found: Mapping[str, NDArray[Any]],
    chosen: GraphOptions,
    split: Split,
    *,
    classes: Sequence[str],
    feature_names: Sequence[str],
    warnings: Sequence[str],
) -> GraphSource:
    """One graph with labelled nodes of the arrays of a file. Raises UsageError for what cannot be learned from."""
    if "y" not in found:
        raise UsageError(f"{path}: has no 'y' (needed: y, edge_index; of many graphs also graph_id)")
    for name in ("features", "edge_attr"):
        if getattr(chosen, name) is not None:
            raise UsageError(f"{path}: ?{name}= is for files of many graphs, which hold a graph_id")
    (train, valid, test), told = public_parts(str(path), found, len(found["y"]) if found["y"].ndim else 0, chosen.split)
    return graph_source(
        reference,
        features_of(path, found),
        found["y"],
        found["edge_index"],
        split,
        train=train,
        valid=valid,
        test=test,
        classes=classes,
        feature_names=feature_names,
        normalise=chosen.normalise,
        renumber=chosen.labels == "renumber",
        warnings=[*warnings, *told],
    )


def features_of(path: Path, found: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The features of such a file, dense. Raises UsageError where they are given twice, not at all, or wrongly."""
    if ("x" in found) == any(key in found for key in SPARSE):
        raise UsageError(f"{path}: features are either x or {', '.join(SPARSE)}")
    return found["x"] if "x" in found else _dense(path, found)


def _dense(path: Path, found: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
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
