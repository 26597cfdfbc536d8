"""The one way in which data reaches every network: fit loop, proxies, supernets, export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nas_core.task import Task

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("train", "valid", "test")
HALVES = ("weights", "alphas")
"""What bilevel searches train on: of images two stratified halves of "train", of a graph "train" and "valid"."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of a network and what it should answer.

    `model(*inputs)`: `(x,)` for images, `(x, edge_index)` for graphs. `target` has one entry per sample
    or per node. Where `index` is given, loss and metrics use `output[index]` and `target[index]` (`scored`). The inputs
    of a batch with `mixed` are blends of two samples each: a second `target`, and the share of the first.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    index: Tensor | None = None
    mixed: tuple[Tensor, float] | None = None

    def scored(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the targets that loss and metrics are of."""
        if self.index is None:
            return output, self.target
        return output[self.index], self.target[self.index]


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
        """Per metric the scalar *sum* over the batch's samples; `count` holds how many there were."""
        ...
