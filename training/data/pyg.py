"""`pyg:DIR`: a data set that PyTorch Geometric has processed on this machine, with a single graph.

The processed file is read with torch's loader for plain tensors, so nothing in it is executed, nothing is processed
again and nothing is downloaded.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.errors import NotFoundError, UsageError
from training.data.files import folder_of
from training.data.graph_arrays import GraphOptions
from training.data.masks import MASKS, public_parts
from training.data.reference import options
from training.data.source import GraphSource, graph_source
from training.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "pyg:ROOT/NAME, the folder of a PyTorch Geometric data set, such as pyg:~/data/Cora"
# What PyTorch Geometric keeps beside the data.
SETTINGS = ("pre_filter.pt", "pre_transform.pt")
KEYS = ("x", "y", "edge_index", *MASKS, "num_nodes")


def load(argument: str, split: Split) -> GraphSource:
    """Node features, labels and edges; the public masks where there are any."""
    where, chosen = options("pyg", argument, GraphOptions)
    path = _processed(folder_of("pyg", where, EXAMPLE))
    graph, others = _read(path)
    missing = [key for key in ("x", "y", "edge_index") if key not in graph]
    if missing:
        raise UsageError(f"{path}: the graph has no '{missing[0]}' (it has {', '.join([*graph, *others])})")
    (train, valid, test), warnings = public_parts(str(path), graph, len(graph["y"]), chosen.split)
    unused = [key for key in (*graph, *others) if key not in KEYS]
    return graph_source(
        f"pyg:{argument}",
        graph["x"],
        graph["y"],
        graph["edge_index"],
        split,
        train=train,
        valid=valid,
        test=test,
        normalise=chosen.normalise,
        renumber=chosen.labels == "renumber",
        warnings=[*([f"not used: {', '.join(unused)}"] if unused else []), *warnings],
    )


def _processed(folder: Path) -> Path:
    """The processed file below DIR or DIR/<variant> (such as geom_gcn), which must be the only one."""
    files = [*folder.glob("processed/*.pt"), *folder.glob("*/processed/*.pt")]
    found = sorted(path for path in files if path.name not in SETTINGS)
    if len(found) == 1:
        return found[0]
    if found:
        choices = sorted({f"pyg:{path.parent.parent}" for path in found})
        raise UsageError(f"{folder} holds {len(found)} processed files; name one data set: {', '.join(choices)}")
    raw = "; its raw files are there: open it once with PyTorch Geometric" if (folder / "raw").is_dir() else ""
    raise NotFoundError(f"{folder} holds no processed/data.pt of PyTorch Geometric (nothing is downloaded){raw}")


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The plain tensors of the graph, and the names of what else it holds."""
    import torch
    import torch_geometric.data  # noqa: F401 - allows its classes in files of plain tensors

    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        # Not in torch's words, which advise to let the file run code.
        raise UsageError(
            f"{path}: not readable as plain tensors ({type(error).__name__}); process it again with PyTorch Geometric "
            "2.6 or newer"
        ) from error
    data, slices = (*stored, None)[:2] if isinstance(stored, tuple) else (stored, None)
    if slices and any(len(bounds) > 2 for bounds in slices.values()):
        count = max(len(bounds) for bounds in slices.values()) - 1
        raise UsageError(f"{path}: holds {count} graphs; only data sets of one graph with labelled nodes work")
    if not isinstance(data, dict):
        data = data.to_dict() if hasattr(data, "to_dict") else {}
    arrays, others = {}, []
    for key, value in data.items():
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            arrays[key] = value.numpy()
        elif value is not None:
            others.append(key)
    return arrays, others
