"""Many graphs on a device: all of them as tensors, mini-batches gathered by index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.task import Task
from training.data.loading import Loading
from training.data.passes import Orders
from training.data.scored import Scored
from training.data.split import UNLABELLED, Parts
from training.inputs.many_graphs import ManyGraphInputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ManyGraphs(Protocol):
    """What is bound of many graphs (`training.data.many_graphs.ManyGraphSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def edge_index(self) -> NDArray[np.int64]: ...
    @property
    def edge_attr(self) -> NDArray[np.float32] | None: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def edge_counts(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> NDArray[Any]: ...
    @property
    def strata(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def inputs(self) -> ManyGraphInputs: ...
    def targets_of(self, graphs: NDArray[np.int64]) -> NDArray[Any]: ...


class BoundManyGraphs(Scored):
    """Graphs for the fit loop (`nas_core.batch.Data`): inputs are (x [n, f], edge_index [2, e], counts [b]), with
    edge_attr [e, k] before the counts where edges have features; the batches are those of `Orders`.

    Edges of a batch are in the order of their targets, and what layers need of them travels with them (`GraphBatch`).
    Targets are class numbers, several classes [., k] of 0 and 1, or numbers [., k] float32 in the unit of the training,
    per graph or per node. What is evaluated is gathered once.
    """

    def __init__(self, source: ManyGraphs, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        graphs = len(source.counts)
        numbers = max(1, source.features.size // graphs)
        self._orders = Orders(source.strata, source.parts, loading.batch_size, numbers)
        self._counts, self._edge_counts = torch.from_numpy(source.counts), torch.from_numpy(source.edge_counts)
        self._starts = self._counts.cumsum(0) - self._counts
        self._edge_starts = self._edge_counts.cumsum(0) - self._edge_counts
        self._x, self._edge_index = (
            torch.from_numpy(array).to(self.device) for array in (source.features, source.edge_index)
        )
        attr = source.edge_attr
        self._edge_attr = None if attr is None else torch.from_numpy(attr).to(self.device)
        self._per_graph = source.task.level == "graph"
        self._unit: tuple[float, float] | None = None
        targets = torch.from_numpy(source.targets)
        if targets.dtype == torch.float64:
            mean, deviation = self._unit = source.inputs.target_mean, source.inputs.target_deviation
            targets = ((targets - mean) / deviation).to(torch.float32)
        self._targets = targets.to(self.device)
        self._some_unlabelled = targets.dtype == torch.int64 and bool((targets == UNLABELLED).any())
        self._evaluated: dict[str, list[Batch]] = {}

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order of a training pass depends on (seed, epoch)."""
        now = self._orders.of(part, epoch, seed)
        split = now.order.split(now.batch_size)
        if now.draws is not None:
            yield from map(self._gathered, split)
            return
        if part not in self._evaluated:
            self._evaluated[part] = list(map(self._gathered, split))
        yield from self._evaluated[part]

    def targets(self, part: str) -> Tensor:
        graphs = self._orders.parts[part]
        if self._per_graph:
            return self._targets[graphs.to(self.device)]
        found = self._targets[_places(self._starts[graphs], self._counts[graphs]).to(self.device)]
        return found[found != UNLABELLED] if self._some_unlabelled else found

    def _gathered(self, graphs: Tensor) -> Batch:
        """These graphs [b], on the CPU, as a batch on the device."""
        from search_spaces.layers.graph_batch import GraphBatch  # which imports torch_geometric

        counts, edge_counts = self._counts[graphs], self._edge_counts[graphs]
        nodes = _places(self._starts[graphs], counts).to(self.device)
        edges = _places(self._edge_starts[graphs], edge_counts).to(self.device)
        moved = counts.cumsum(0) - counts - self._starts[graphs]
        shift = moved.repeat_interleave(edge_counts, output_size=len(edges)).to(self.device)
        x, edge_index = self._x.index_select(0, nodes), self._edge_index.index_select(1, edges) + shift
        attr = None if self._edge_attr is None else self._edge_attr.index_select(0, edges)
        counts = counts.to(self.device)
        graph = GraphBatch(edge_index, len(x), attr, counts, ascending=True)
        inputs = [x, graph.carrier(x), *([] if attr is None else [attr]), counts]
        target = self._targets.index_select(0, graphs.to(self.device) if self._per_graph else nodes)
        index = (target != UNLABELLED).nonzero()[:, 0] if self._some_unlabelled else None
        return Batch(tuple(inputs), target, index, unit=self._unit, graphs=True)


def _places(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... starts[1], ...: so many from each start, one after another."""
    total = int(counts.sum())
    return torch.arange(total) + (starts - counts.cumsum(0) + counts).repeat_interleave(counts, output_size=total)
