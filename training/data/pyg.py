"""`pyg:DIR`: a data set that PyTorch Geometric has processed on this machine, of one graph or of many.

The processed file is read with torch's loader for plain tensors, so nothing in it is executed, nothing is processed
again and nothing is downloaded.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from nas_core.errors import NotFoundError, UsageError
from nas_core.task import EDGE_CLASSIFICATION, LINK_PREDICTION
from training.data.files import folder_of
from training.data.graph import KEYS, one_graph, usual_task
from training.data.graph_arrays import GraphOptions, many_graphs
from training.data.parts import NAMES as PARTS
from training.data.parts import part_of
from training.data.protocol import Source
from training.data.pyg_graphs import Stored, joined
from training.data.reference import options
from training.data.split import Split

EXAMPLE = "pyg:ROOT/NAME, the folder of a PyTorch Geometric data set, such as pyg:~/data/Cora"
# What PyTorch Geometric keeps beside the data.
SETTINGS = ("pre_filter.pt", "pre_transform.pt")


def load(argument: str, split: Split) -> Source:
    """Node features, labels and edges; the public masks where there are any; or the links of one graph. Many graphs
    where there are such, with the parts that they are stored in."""
    where, chosen = options("pyg", argument, GraphOptions)
    files = {part: _read(path) for part, path in _processed(folder_of("pyg", where, EXAMPLE)).items()}
    (first, *more) = files.values()
    if more or first.graphs > 1:
        if chosen.task is not None:
            raise UsageError(f"{first.path}: ?task={chosen.task} is for data sets of one graph")
        arrays, told = joined(files)
        return many_graphs(f"pyg:{argument}", first.path, arrays, chosen, split, warnings=told)
    path, graph, others = first.path, dict(first.arrays), first.others
    if "edge_y" not in graph and "edge_label" in graph and "edge_label_index" not in graph:
        graph["edge_y"] = graph.pop("edge_label")  # of the edges themselves: there are no pairs that it is of
    task = chosen.task or usual_task(graph)
    labels = {LINK_PREDICTION: (), EDGE_CLASSIFICATION: ("edge_y",)}.get(task, ("y",))
    needed = ("x", *labels, "edge_index")
    missing = [key for key in needed if key not in graph]
    if missing:
        raise UsageError(f"{path}: the graph has no '{missing[0]}' (it has {', '.join([*graph, *others])})")
    given = {key: graph[key] for key in graph if key in KEYS[task]}
    unused = [key for key in (*graph, *others) if key not in (*KEYS[task], "num_nodes")]
    told = [f"not used: {', '.join(unused)}"] if unused else []
    return one_graph(task, f"pyg:{argument}", path, given, chosen, split, warnings=told)


def _processed(folder: Path) -> dict[str, Path]:
    """The processed file below DIR or DIR/<variant> (such as geom_gcn), which must be the only one, under ""; or those
    of the three parts, by their names."""
    files = [*folder.glob("processed/*.pt"), *folder.glob("*/processed/*.pt")]
    found = sorted(path for path in files if path.name not in SETTINGS)
    if len(found) == 1:
        return {"": found[0]}
    parts = {part_of(path.stem.removesuffix("_data")): path for path in found}
    if len(parts) == len(found) == len(PARTS) and set(parts) == set(PARTS):
        return {part: parts[part] for part in PARTS}
    if found:
        choices = sorted({f"pyg:{path.parent.parent}" for path in found})
        raise UsageError(f"{folder} holds {len(found)} processed files; name one data set: {', '.join(choices)}")
    raw = "; its raw files are there: open it once with PyTorch Geometric" if (folder / "raw").is_dir() else ""
    raise NotFoundError(f"{folder} holds no processed/data.pt of PyTorch Geometric (nothing is downloaded){raw}")


def _read(path: Path) -> Stored:
    """The plain tensors of the graphs, and the names of what else they hold."""
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
    if not isinstance(data, dict):
        data = data.to_dict() if hasattr(data, "to_dict") else {}
    arrays, others = {}, []
    for key, value in data.items():
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            arrays[key] = value.numpy()
        elif value is not None:
            others.append(key)
    bounds = {key: np.asarray(value, dtype=np.int64) for key, value in (slices or {}).items()}
    return Stored(path, arrays, bounds, others)
