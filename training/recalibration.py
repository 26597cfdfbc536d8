"""The running statistics of batch normalisations, made anew: those of a path of a supernet, or of a pruned network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_core.batch import Batch
from search_spaces.layers.batch_moment import BatchMoment


def recalibrate(network: nn.Module, answer: Callable[[Batch], Any], batches: Iterable[Batch]) -> None:
    """Give all batch normalisations the statistics of these batches, each counting the same, in place of those that
    they have; the network is in evaluation mode afterwards. A network without any is not run.

    `answer` runs the network. Only batch normalisation is in training mode meanwhile: the statistics are of what the
    network computes when it is evaluated, without dropout. One that does not run ends up as it was made.
    """
    network.eval()
    norms = [module for module in network.modules() if _averages(module)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for batch in batches:
            answer(batch)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _averages(module: nn.Module) -> TypeGuard[_BatchNorm | BatchMoment]:
    return isinstance(module, BatchMoment) or (isinstance(module, _BatchNorm) and module.track_running_stats)


def first(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The first `count` batches, less a last one that is smaller: its statistics would count as much as the others."""
    size = 0
    for number, batch in enumerate(batches):
        if number == count or len(batch.target) < size:
            return
        size = len(batch.target)
        yield batch
