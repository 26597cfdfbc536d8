"""Many graphs as PyTorch Geometric stores them: tensors of all graphs one after another, and where each graph begins.

Edges name nodes of their own graph. A data set of several files has a part of the data in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.data.masks import LISTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = ("x", "y", "edge_index", "edge_attr", "num_nodes")


@dataclass(frozen=True)
class Stored:
    """What a processed file holds: arrays of all its graphs, bounds [graphs + 1] of each, names of what else it has."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    bounds: Mapping[str, NDArray[np.int64]]
    others: Sequence[str]

    @property
    def graphs(self) -> int:
        """How many there are; one where it says nothing of bounds."""
        return max((len(bounds) for bounds in self.bounds.values()), default=2) - 1


def joined(files: Mapping[str, Stored]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays of `training.data.graph_arrays` of files by their part ("" where one holds all), and what to tell.

    Whole numbers in one column of `x` are tags. Targets are of nodes where there are as many, else of graphs, numbers
    where they are floats. Raises UsageError for what cannot be told.
    """
    each = [_of(stored) for stored in files.values()]
    keys = [key for key in each[0] if all(key in one for one in each)]
    found = {key: np.concatenate([one[key] for one in each], axis=-1 if key == "edge_index" else 0) for key in keys}
    sizes = np.cumsum([0, *(len(one["counts"]) for one in each)])
    nodes = np.cumsum([0, *(one["counts"].sum() for one in each)])
    found["edge_index"] = np.concatenate(
        [one["edge_index"] + start for one, start in zip(each, nodes, strict=False)], axis=1
    )
    found["graph_id"] = np.repeat(np.arange(sizes[-1]), found.pop("counts"))
    if len(files) > 1:
        lists = dict(zip(("train", "valid", "test"), LISTS, strict=True))
        for part, start, stop in zip(files, sizes, sizes[1:], strict=False):
            found[lists[part]] = np.arange(start, stop)
    unused = sorted({key for stored in files.values() for key in (*stored.arrays, *stored.others) if key not in KEYS})
    return found, [f"not used: {', '.join(unused)}"] if unused else []


def _of(stored: Stored) -> dict[str, NDArray[Any]]:
    arrays, bounds, where = stored.arrays, stored.bounds, stored.path
    missing = [key for key in ("edge_index", "y") if key not in arrays or key not in bounds]
    if missing:
        raise UsageError(f"{where}: its graphs have no '{missing[0]}' (they have {', '.join(arrays)})")
    if "x" in bounds:
        counts = np.diff(bounds["x"])
    elif "num_nodes" in arrays:
        counts = arrays["num_nodes"].reshape(-1)
    else:
        raise UsageError(f"{where}: its graphs have neither x nor num_nodes, which say how many nodes there are")
    edges = np.diff(bounds["edge_index"])
    found = {
        "counts": counts,
        "edge_index": arrays["edge_index"] + np.repeat(np.cumsum(counts) - counts, edges),
    }
    if "edge_attr" in arrays:
        found["edge_attr"] = arrays["edge_attr"]
    x = arrays.get("x")
    if x is not None and x.dtype.kind in "iu" and x.reshape(len(x), -1).shape[1] == 1:
        found["node_tag"] = x.reshape(-1)
    elif x is not None:
        found["x"] = x.reshape(len(x), -1)
    y, of_each = arrays["y"], np.diff(bounds["y"])
    if len(y) == counts.sum() and (of_each == counts).all() and not (counts == 1).all():
        found["y"] = y
    elif (of_each == of_each[0]).all():
        values = y.reshape(len(counts), -1)
        single = values[:, 0] if values.shape[1] == 1 else values
        found["graph_y" if y.dtype.kind == "f" else "graph_label"] = single
    else:
        raise UsageError(f"{where}: y is neither of every node nor of every graph")
    return found
