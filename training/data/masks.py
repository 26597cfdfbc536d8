"""Public parts of a graph: lists of nodes, or the boolean masks of PyTorch Geometric, one column per public split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Nodes = NDArray[Any] | None

LISTS = ("train_idx", "valid_idx", "test_idx")
MASKS = ("train_mask", "val_mask", "test_mask")


def public_parts(
    where: str, found: Mapping[str, NDArray[Any]], nodes: int, split: int | None, thing: str = "node"
) -> tuple[tuple[Nodes, Nodes, Nodes], list[str]]:
    """The train, valid and test nodes, or other things, that the arrays name, and what to tell of them.

    Masks are [nodes] or [nodes, splits], bool or 0 and 1; of several columns `split` is used, or else the first.
    Raises UsageError for masks of another kind or beside lists, and for a column that is not there.
    """
    lists, masks = ([key for key in keys if key in found] for keys in (LISTS, MASKS))
    if lists and masks:
        raise UsageError(f"{where}: has {lists[0]} and {masks[0]}; name the parts by lists or by masks")
    told = []
    if not masks:
        if split is not None:
            raise UsageError(f"{where}: split={split} chooses a column of the masks, and there are none")
        train, valid, test = (found.get(key) for key in LISTS)
    else:
        columns = max(found[key].shape[1] if found[key].ndim == 2 else 1 for key in masks)
        if split is not None and split >= columns:
            raise UsageError(f"{where}: split={split}: the masks hold {columns} public splits, numbered from 0")
        if columns > 1 and split is None:
            told.append(f"the masks hold {columns} public splits; the first is used, ?split=1 takes the next")
        train, valid, test = (_nodes(where, key, found.get(key), nodes, columns, split or 0, thing) for key in MASKS)
    return (train, valid, test), told


def _nodes(where: str, key: str, mask: NDArray[Any] | None, nodes: int, columns: int, split: int, thing: str) -> Nodes:
    if mask is None:
        return None
    if mask.shape not in ((nodes,), (nodes, 1), (nodes, columns)) or not np.isin(mask, (0, 1)).all():
        raise UsageError(
            f"{where}: {key} is {mask.dtype} {mask.shape}; needed is a bool for each of the {nodes} {thing}s"
        )
    by_column = mask[:, None] if mask.ndim == 1 else mask
    return np.flatnonzero(by_column[:, min(split, by_column.shape[1] - 1)])
