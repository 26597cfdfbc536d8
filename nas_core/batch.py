"""The one way in which data reaches every network: fit loop, proxies, supernets, export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from nas_core.task import Task

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("train", "valid", "test")
HALVES = ("weights", "alphas")
"""What bilevel searches train on: of images two stratified halves of "train", of a graph "train" and "valid"."""


OTHER = -1e4
"""A logit whose softmax is 0 in every precision, and which is finite, so that sums of it times 0 are."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of a network and what it should answer.

    `model(*inputs)`: `(x,)` for images, rows and sequences, `(x, edge_index, ...)` for graphs (`nas_core.task.Graphs`);
    those of many `graphs` end with `counts`. `target` has one entry per sample, node or graph; of answers at every
    position of a sequence it is [samples, positions]. Where `index` is given, loss and metrics use `output[index]` and
    `target[index]` (`scored`). The inputs of a batch with `mixed` are blends of two samples each: a second `target`,
    and the share of the first. With `unit`, a mean and a deviation, targets are standardised numbers, `(number - mean)
    / deviation`. `heads` [outputs] are the numbers of the heads that outputs belong to (`nas_core.task.Head`): for loss
    and metrics, outputs of another head than that of the sample's class are `OTHER`, so that their softmax is 0 and no
    gradient reaches them.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    index: Tensor | None = None
    mixed: tuple[Tensor, float] | None = None
    unit: tuple[float, float] | None = None
    heads: Tensor | None = None
    graphs: bool = False

    @property
    def size(self) -> int:
        """How many there are of what `part` counts: samples, or graphs, also where the samples are their nodes."""
        return len(self.inputs[-1]) if self.graphs else self.samples

    @property
    def samples(self) -> int:
        """How many samples (nodes) the loss of the batch is a mean of."""
        return len(self.target if self.index is None else self.index)

    def part(self, start: int, stop: int) -> Batch:
        """The samples `start` to `stop` as a batch: of one graph the same graph with these of the nodes in `index`, of
        many these graphs."""
        if self.graphs:
            return self._graphs(start, stop)
        if self.index is not None:
            return replace(self, index=self.index[start:stop])
        mixed = None if self.mixed is None else (self.mixed[0][start:stop], self.mixed[1])
        inputs = tuple(value[start:stop] for value in self.inputs)
        return replace(self, inputs=inputs, target=self.target[start:stop], mixed=mixed)

    def _graphs(self, start: int, stop: int) -> Batch:
        first, last = node_range(self.inputs[-1], start, stop)
        # Targets are one per graph or one per node; with one node in every graph both are the same.
        whole = len(self.target) == len(self.inputs[-1])
        index = self.index
        if index is not None:
            index = index[(index >= first) & (index < last)] - first
        target = self.target[start:stop] if whole else self.target[first:last]
        return replace(self, inputs=some_graphs(self.inputs, start, stop), target=target, index=index)

    def scored(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs [n, k] and the targets that the loss is of: those of every position are a row each."""
        if self.heads is not None:
            return output.masked_fill(self.heads != self.heads[self.target][:, None], OTHER), self.target
        if self.index is None:
            if output.dim() == self.target.dim() + 1 > 2:
                return output.flatten(0, -2), self.target.flatten()
            return output, self.target
        return output[self.index], self.target[self.index]

    def answered(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the targets that metrics are of: numbers in their own unit."""
        outputs, targets = self.scored(output)
        if self.unit is None:
            return outputs, targets
        mean, deviation = self.unit
        return outputs * deviation + mean, targets * deviation + mean


def plain(inputs: Iterable[Any]) -> tuple[Any, ...]:
    """Tensors and arrays as programs and files take them: what travels with the edges of a graph stays behind."""
    return tuple(one.as_tensor() if hasattr(one, "as_tensor") else one for one in inputs)


def node_range(counts: Any, start: int, stop: int) -> tuple[int, int]:
    """The first node of graph `start`, and the one after the last of graph `stop` - 1, by their nodes [graphs]."""
    ends = [0, *counts.cumsum(0).tolist()]
    return ends[min(start, len(counts))], ends[min(stop, len(counts))]


def some_graphs(inputs: Sequence[Any], start: int, stop: int) -> tuple[Any, ...]:
    """The graphs `start` to `stop` of (x, edge_index, ..., counts), tensors or arrays, `plain`; what lies between are
    values of edges."""
    x, edge_index, *values, counts = plain(inputs)
    first, last = node_range(counts, start, stop)
    inside = (edge_index[1] >= first) & (edge_index[1] < last)
    return x[first:last], edge_index[:, inside] - first, *(value[inside] for value in values), counts[start:stop]


class Data(Protocol):
    """A data set on a device, split into parts, ready for the fit loop."""

    task: Task

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """The batches of one pass over `part` (of PARTS or HALVES); order and augmentation of "train" and the halves
        depend on (seed, epoch, part) alone."""
        ...

    def targets(self, part: str) -> Tensor:
        """What all samples of `part` should be answered with."""
        ...

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Scalar mean loss of a batch."""
        ...

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Per metric that is a mean over samples the scalar *sum* over those of the batch, and that of the losses as
        `loss`; `count` holds how many there were."""
        ...
