"""Data on a device: whole sets as tensors, batches by index, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nas_core.batch import HALVES, PARTS, Batch
from nas_core.errors import unknown
from nas_core.task import Task
from training.data.loading import Loading
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
    """

    def __init__(self, source: Graph, device: torch.device | str, unit: tuple[float, float] | None = None) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        from search_spaces.layers.graph_batch import GraphBatch  # which imports torch_geometric

        features, edge_index, labels = (
            torch.from_numpy(array).to(self.device) for array in (source.features, source.edge_index, source.labels)
        )
        edges = GraphBatch(edge_index, len(features)).carrier(features)
        parts = {
            **dict(source.parts.items()),
            **dict(zip(HALVES, (source.parts.train, source.parts.valid), strict=True)),
        }
        self._batches = {
            name: Batch((features, edges), labels, torch.from_numpy(part).to(self.device), unit=unit)
            for name, part in parts.items()
        }

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The whole graph, once; it is the same for every epoch and seed."""
        if part not in self._batches:
            raise unknown("part", part, (*PARTS, *HALVES))
        yield self._batches[part]

    def targets(self, part: str) -> Tensor:
        batch = self._batches[part]
        return batch.target[batch.index]
