"""A graph and pairs of its nodes on a device: one batch per part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from nas_core.batch import HALVES, PARTS, Batch
from nas_core.errors import unknown
from nas_core.seeds import generator
from nas_core.task import Task
from training.data.scored import Scored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from training.data.links import NonEdges, PairNumbers
    from training.data.split import Parts


class Pairs(Protocol):
    """What is bound of a graph with pairs (`training.data.pair_source`)."""

    @property
    def task(self) -> Task: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def edge_index(self) -> NDArray[np.int64]: ...
    @property
    def edge_attr(self) -> NDArray[np.float32] | None: ...


class Links(Pairs, Protocol):
    """What is bound of links that are predicted."""

    @property
    def edges(self) -> Mapping[str, NDArray[np.int64]]: ...
    @property
    def others(self) -> Mapping[str, NDArray[np.int64]]: ...
    @property
    def non_edges(self) -> tuple[PairNumbers, NonEdges]: ...


class Edges(Pairs, Protocol):
    """What is bound of edges with classes."""

    @property
    def pairs(self) -> NDArray[np.int64]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...


class _Bound(Scored):
    """Inputs are (x [n, f], edge_index [2, e], pairs [2, p]), with edge_attr [e, k] before the pairs where edges have
    features. What layers need of the edges travels with them (`GraphBatch`)."""

    def __init__(self, source: Pairs, device: torch.device | str) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        from search_spaces.layers.graph_batch import GraphBatch  # which imports torch_geometric

        arrays = (source.features, source.edge_index, source.edge_attr)
        x, edge_index, *values = (torch.from_numpy(array).to(self.device) for array in arrays if array is not None)
        graph = GraphBatch(edge_index, len(x), values[0] if values else None, ascending=True)
        self._graph = (x, graph.carrier(x), *values)

    def _batch(self, pairs: Tensor, target: Tensor, index: Tensor | None = None) -> Batch:
        """With an index, so that a part of the batch is the same graph with the same pairs."""
        index = torch.arange(len(target)) if index is None else index
        inputs = (*self._graph, pairs.to(self.device))
        return Batch(inputs, target.to(self.device), index.to(self.device))


class BoundLinks(_Bound):
    """Links for the fit loop: a batch has the edges of a part and as many pairs without one, which in training are
    drawn anew by (seed, epoch, part); targets [p, 1] are 1 and 0."""

    def __init__(self, source: Links, device: torch.device | str) -> None:
        super().__init__(source, device)
        self._edges = {**source.edges, **dict(zip(HALVES, (source.edges["train"], source.edges["valid"]), strict=True))}
        self._numbers, self._free = source.non_edges
        others = {**source.others, HALVES[1]: source.others["valid"]}
        self._evaluated = {name: self._made(name, pairs) for name, pairs in others.items()}

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The whole graph, once."""
        if part not in self._edges:
            raise unknown("part", part, (*PARTS, *HALVES))
        if part in self._evaluated:
            yield self._evaluated[part]
        else:
            drawn = self._free.draw(self._edges[part].shape[1], generator(seed, epoch, part, "non-edges"))
            yield self._made(part, self._numbers.pairs(drawn))

    def targets(self, part: str) -> Tensor:
        return next(self.batches(part, 0, 0)).target

    def _made(self, part: str, others: NDArray[np.int64]) -> Batch:
        edges = self._edges[part]
        target = torch.zeros(edges.shape[1] + others.shape[1], 1)
        target[: edges.shape[1]] = 1
        return self._batch(torch.from_numpy(np.concatenate([edges, others], axis=1)), target)


class BoundEdges(_Bound):
    """Edges with classes for the fit loop: the pairs are those of the part, targets [p] their classes."""

    def __init__(self, source: Edges, device: torch.device | str) -> None:
        super().__init__(source, device)
        parts = {
            **dict(source.parts.items()),
            **dict(zip(HALVES, (source.parts.train, source.parts.valid), strict=True)),
        }
        pairs, labels = torch.from_numpy(source.pairs), torch.from_numpy(source.labels)
        self._batches = {name: self._batch(pairs[:, part], labels[part]) for name, part in parts.items()}

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The whole graph, once; it is the same for every epoch and seed."""
        if part not in self._batches:
            raise unknown("part", part, (*PARTS, *HALVES))
        yield self._batches[part]

    def targets(self, part: str) -> Tensor:
        return self._batches[part].target
