"""Data on a device: whole sets as tensors, batches by index, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nas_core.batch import HALVES, PARTS, Batch
from nas_core.errors import unknown
from nas_core.seeds import generator
from nas_core.task import Task
from training.data.loading import Loading
from training.data.neighbours import Neighbours, Sample
from training.data.passes import Passes
from training.data.scored import Scored
from training.data.split import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Up to here the normalised float32 images are kept; larger sets stay as stored and are normalised batch by batch.
FLOAT_LIMIT = 2**30


class Images(Protocol):
    """What is bound of an image set (`training.data.source.ImageSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def images(self) -> NDArray[Any]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]: ...


class Graph(Protocol):
    """What is bound of a graph (`training.data.source.GraphSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def edge_index(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...


class BoundImages(Scored):
    """Images for the fit loop (`nas_core.batch.Data`): inputs are (images [b, c, h, w] float32,), see `Passes`."""

    def __init__(self, source: Images, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        shape, statistics = source.images.shape[1:], source.statistics
        self._passes = Passes(*(shape, source.labels, source.parts, statistics), self.device, loading)
        self._labels = torch.from_numpy(source.labels).to(self.device)
        self._images = torch.from_numpy(source.images).to(self.device)
        self._normalised = source.images.size * 4 < FLOAT_LIMIT
        if self._normalised:
            self._images = self._passes.normalise(self._images)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order and the augmentation of a training pass depend on (seed, epoch)."""
        now = self._passes.orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            images = self._images.index_select(0, rows)
            if not self._normalised:
                images = self._passes.normalise(images)
            yield Batch((self._passes.finish(images, now.draws),), self._labels.index_select(0, rows))

    def targets(self, part: str) -> Tensor:
        return self._labels.index_select(0, self._passes.orders.parts[part].to(self.device))


class BoundGraph(Scored):
    """A graph for the fit loop: one batch per part, inputs (features [n, f], edge_index [2, e]), the part as index.

    Edges are sorted by target, and what layers need of them travels with them (`GraphBatch`): it is made once.
    Targets are the labels, class numbers [n] or numbers [n, k] in the `unit` of the training.

    With a fan-out a training batch is `batch_size` nodes of the part, in an order that depends on (seed, epoch, part),
    with what is drawn of their neighbours (`Neighbours`), and the index are these nodes. What is evaluated is the whole
    graph.
    """

    def __init__(
        self, source: Graph, device: torch.device | str, loading: Loading, unit: tuple[float, float] | None = None
    ) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        from search_spaces.layers.graph_batch import GraphBatch  # which imports torch_geometric

        features, edge_index, labels = (
            torch.from_numpy(array).to(self.device) for array in (source.features, source.edge_index, source.labels)
        )
        self._whole = GraphBatch(edge_index, len(features))
        self._inputs = features, self._whole.carrier(features)
        self._labels, self._unit = labels, unit
        halves = zip(HALVES, (source.parts.train, source.parts.valid), strict=True)
        self._parts = {**dict(source.parts.items()), **dict(halves)}
        self._batches = {
            name: Batch(self._inputs, labels, torch.from_numpy(part).to(self.device), unit=unit)
            for name, part in self._parts.items()
        }
        self._fan_out, self._batch_size = loading.fan_out, loading.batch_size
        if self._fan_out is not None:
            self._neighbours = Neighbours(source.edge_index, len(features))

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The whole graph, once, the same for every epoch and seed; or samples of it. A last batch of one node, which
        batch normalisation cannot use, is left out."""
        if part not in self._parts:
            raise unknown("part", part, (*PARTS, *HALVES))
        if self._fan_out is None or part not in ("train", *HALVES):
            yield self._batches[part]
            return
        draws = generator(seed, epoch, part, "neighbours")
        order = draws.permutation(self._parts[part])
        for start in range(0, len(order), self._batch_size):
            seeds = order[start : start + self._batch_size]
            if len(seeds) > 1 or len(order) == 1 or self._batch_size == 1:
                yield self._sampled(self._neighbours.sample(seeds, self._fan_out, draws), len(seeds))

    def targets(self, part: str) -> Tensor:
        batch = self._batches[part]
        return batch.target[batch.index]

    def _sampled(self, sample: Sample, seeds: int) -> Batch:
        from search_spaces.layers.graph_batch import GraphBatch, Piece

        arrays = (sample.nodes, sample.edge_index, sample.ending, sample.leaving, sample.loops)
        rows, edge_index, *counts = (torch.from_numpy(array).to(self.device) for array in arrays)
        graph = GraphBatch(edge_index, len(rows), piece=Piece(self._whole, rows, *counts))
        x = self._inputs[0].index_select(0, rows)
        index = torch.arange(seeds, device=self.device)
        return Batch((x, graph.carrier()), self._labels.index_select(0, rows), index, unit=self._unit)
