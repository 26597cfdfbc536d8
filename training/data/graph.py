"""`graph:FILE`: one graph with labelled nodes as numpy arrays (keys in docs/data.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from training.data.files import arrays, file_of, texts, unused
from training.data.masks import LISTS, MASKS, public_parts
from training.data.reference import options
from training.data.source import GraphSource, graph_source
from training.data.split import Split
from training.inputs.graphs import Normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "graph:FILE, where FILE holds the arrays x, y and edge_index"
SPARSE = ("x_indptr", "x_indices", "x_data", "x_shape")
KEYS = ("x", *SPARSE, "y", "edge_index", *LISTS, *MASKS, "classes", "feature_names")


class GraphOptions(Config):
    """What may follow the file, as in `graph:FILE?normalise=rows&split=1`."""

    normalise: Normalise = Field(default="none", description="rows: divide each node's features by their sum")
    split: int | None = Field(default=None, ge=0, description="column of masks that hold several public splits")
    labels: Literal["renumber"] | None = Field(default=None, description="number the labels that occur from 0")


def load(argument: str, split: Split) -> GraphSource:
    """Features dense (`x`) or in compressed rows (`x_indptr`, ...), labels `y`, `edge_index`, public parts."""
    where, chosen = options("graph", argument, GraphOptions)
    path = file_of("graph", where, EXAMPLE)
    found = arrays(path, ("y", "edge_index"), KEYS)
    warnings = unused(path, KEYS)
    (train, valid, test), told = public_parts(str(path), found, len(found["y"]) if found["y"].ndim else 0, chosen.split)
    return graph_source(
        f"graph:{argument}",
        features_of(path, found),
        found["y"],
        found["edge_index"],
        split,
        train=train,
        valid=valid,
        test=test,
        classes=texts(path, "classes", found),
        feature_names=texts(path, "feature_names", found),
        normalise=chosen.normalise,
        renumber=chosen.labels == "renumber",
        warnings=[*warnings, *told],
    )


def features_of(path: Path, found: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The features of such a file, dense. Raises UsageError where they are given twice, not at all, or wrongly."""
    if ("x" in found) == any(key in found for key in SPARSE):
        raise UsageError(f"{path}: features are either x or {', '.join(SPARSE)}")
    return found["x"] if "x" in found else _dense(path, found)


def _dense(path: Path, found: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
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
