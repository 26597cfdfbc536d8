"""A file of the data, and what the network in training sees of it: an exported network must answer it alike."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_core.batch import plain
from training import tasks
from training.data.many_graphs import ManyGraphSource
from training.data.node_numbers import NodeNumberSource
from training.data.pair_source import PairSource
from training.data.protocol import Source
from training.data.questions import QuestionSource
from training.data.source import GraphSource, ImageSource
from training.data.stream import StreamSource
from training.data.table_source import TableSource
from training.data.task_source import TaskSource
from training.data.text import TextSource
from training.inputs.samples import Proof

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = 3


def proofs_of(source: Source) -> list[Proof]:
    """As the kind of task makes them; none for a source of a class of one's own, whose stored values are not known."""
    return tasks.kind_of(source.task).proofs(source)


def pictures(source: Source) -> list[Proof]:
    """Validation images as PNG files, or as one npz file where no image file has such channels."""
    if not isinstance(source, ImageSource | StreamSource):
        return []
    low, high = source.value_range
    rows = source.parts.valid[:IMAGES]
    found, seen = _in_memory(source, rows) if isinstance(source, ImageSource) else _streamed(source, rows)
    stored = found.astype(np.float64)
    if source.inputs.mode is None:
        content = npz(images=found, layout=np.array("nchw"))
        return [Proof("proof.npz", content, "npz:{}/proof.npz", (seen,))]
    bytes_ = np.clip(np.rint((stored - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    # A file holds 256 levels: where the data hold others, the network in training is asked about what the file holds.
    moved = bytes_ / 255.0 * (high - low) + low - stored
    _, deviation = source.statistics
    shift = moved / np.asarray(deviation).reshape(1, -1, 1, 1)
    exact = seen + torch.from_numpy(shift.astype(np.float32))
    return [
        Proof(f"proof-{n}.png", _png(image), f"{{}}/proof-{n}.png", (exact[n : n + 1],))
        for n, image in enumerate(bytes_)
    ]


def asked(source: Source) -> list[Proof]:
    """The same, each asked for its task; of one npz file all images are asked for the task of the first."""
    if not isinstance(source, TaskSource):
        return []
    found = []
    for proof, number in zip(pictures(source), source.asked[source.parts.valid[:IMAGES]].tolist(), strict=False):
        tasks = torch.full((len(proof.seen[0]),), number)
        seen = (*proof.seen, tasks) if source.inputs.told else proof.seen
        found.append(replace(proof, argument=f"{proof.argument}?task={source.task.heads[number].name}", seen=seen))
    return found


def _in_memory(source: ImageSource, rows: NDArray[np.int64]) -> tuple[NDArray[Any], Tensor]:
    seen, *_ = next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs
    return source.images[rows], seen[: len(rows)]


def _streamed(source: StreamSource, rows: NDArray[np.int64]) -> tuple[NDArray[Any], Tensor]:
    """Each image is read once: it may be another one the next time."""
    found = source.stored(rows.tolist(), 0)
    mean, deviation = (np.asarray(values).reshape(1, -1, 1, 1) for values in source.statistics)
    return found, torch.from_numpy(((found - mean) / deviation).astype(np.float32))


def graph(source: Source) -> list[Proof]:
    """The graph as an npz file."""
    if not isinstance(source, GraphSource | NodeNumberSource):
        return []
    content = npz(x=source.features, edge_index=source.edge_index)
    seen = plain(next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs)
    return [Proof("proof.npz", content, "graph:{}/proof.npz", seen)]


def many_graphs(source: Source) -> list[Proof]:
    """The first validation graphs as an npz file, whose features are those that the network's are made of."""
    if not isinstance(source, ManyGraphSource):
        return []
    kind, batch = tasks.kind_of(source.task), next(iter(source.bind("cpu").batches("valid", 0, 0)))
    seen = kind.first(batch.inputs, IMAGES)
    x, edge_index, *values, counts = (tensor.numpy() for tensor in seen)
    said = source.inputs
    own, tags = x[:, : said.own], x[:, said.own : said.own + len(said.tags)]
    if said.normalise == "rows" and said.own < said.features:
        own = own / x[:, said.own :].max(1, keepdims=True)  # what stands beside them was 1
    given = {"edge_index": edge_index, "graph_id": np.repeat(np.arange(len(counts)), counts)}
    if said.own:
        given["x"] = own
    if said.tags:
        given["node_tag"] = np.array([*said.tags, max(said.tags) + 1])[
            np.where(tags.any(1), tags.argmax(1), len(said.tags))
        ]
    if values:
        given["edge_attr"] = values[0]
    return [Proof("proof.npz", npz(**given), "graph:{}/proof.npz", seen)]


def pairs(source: Source) -> list[Proof]:
    """The graph and the pairs of the validation part as an npz file."""
    if not isinstance(source, PairSource):
        return []
    *_, asked = next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs
    values = {} if source.edge_attr is None else {"edge_attr": source.edge_attr}
    given = {"x": source.features, "edge_index": source.edge_index, **values, "pairs": asked.numpy()}
    seen = tuple(map(torch.from_numpy, given.values()))  # in the order of the network's inputs
    return [Proof("proof.npz", npz(**given), "graph:{}/proof.npz", seen)]


def _png(image: NDArray[np.uint8]) -> bytes:
    """[1, h, w] in grey or [3, h, w] in RGB."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "png")
    return buffer.getvalue()


def table(source: Source) -> list[Proof]:
    """The first validation rows as a csv file."""
    if not isinstance(source, TableSource) or not source.examples:
        return []
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [column.name for column in source.inputs.columns]
    if source.inputs.header:
        writer.writerows([names, *source.examples])
    else:  # a column's place is its name: c3
        places = [int(name[1:]) for name in names]
        width = max(*places, int(source.inputs.target[1:] or 0)) + 1
        for row in source.examples:
            texts = dict(zip(places, row, strict=True))
            writer.writerow([texts.get(place, "") for place in range(width)])
    seen = torch.from_numpy(source.features[source.parts.valid[: len(source.examples)]])
    return [Proof("proof.csv", text.getvalue().encode(), "csv:{}/proof.csv", (seen,))]


def text(source: Source) -> list[Proof]:
    """The first window of the validation part as a text file."""
    if not isinstance(source, TextSource):
        return []
    begin, window = int(source.parts.valid[0]), source.inputs.window
    seen = torch.from_numpy(source.tokens[begin : begin + window].astype(np.int64))[None]
    return [Proof("proof.txt", source.text.encode(), "text:{}/proof.txt", (seen,))]


def questions(source: Source) -> list[Proof]:
    """Validation questions as one npz file."""
    if not isinstance(source, QuestionSource):
        return []
    tokens = source.tokens[source.parts.valid[:IMAGES]]
    return [Proof("proof.npz", npz(tokens=tokens), "npz:{}/proof.npz", (torch.from_numpy(tokens),))]


def npz(**arrays: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
