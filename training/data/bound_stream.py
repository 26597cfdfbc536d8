"""Streamed images on a device: batches that processes read ahead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.seeds import derive
from nas_core.task import Task
from training.data.loading import Loading
from training.data.passes import Passes
from training.data.scored import Scored
from training.data.split import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_WORKERS = 4  # where nobody says

_Key = tuple[int, list[int]]  # seed and rows of a batch


class Stream(Protocol):
    """What is bound of images that are read when they are wanted (`training.data.stream.StreamSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]: ...
    @property
    def workers(self) -> int | None: ...
    def stored(self, numbers: Sequence[int], seed: int) -> NDArray[Any]: ...


class BoundStream(Scored):
    """Images for the fit loop that are read batch by batch; see `Passes` for their order and changes.

    Everything depends on (seed, epoch, part) alone, random transforms of the user's too, so that a pass is the same
    however many processes read it, and a resumed training goes on with the batches that it would have had.
    """

    def __init__(self, source: Stream, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        shape = source.task.input_shape
        self._passes = Passes(*(shape, source.labels, source.parts, source.statistics), self.device, loading)
        self._labels = torch.from_numpy(source.labels).to(self.device)
        self._source = source

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order and the changes of a training pass depend on (seed, epoch)."""
        now = self._passes.orders.of(part, epoch, seed)
        rows = now.order.split(now.batch_size)
        when = (part,) if now.draws is None else (seed, epoch, part)
        keys = [(derive("items", *when, number), chosen.tolist()) for number, chosen in enumerate(rows)]
        for chosen, stored in zip(rows, _read(self._source, keys), strict=True):
            images = self._passes.normalise(torch.from_numpy(stored).to(self.device))
            labels = self._labels.index_select(0, chosen.to(self.device))
            yield Batch((self._passes.finish(images, now.draws),), labels)

    def targets(self, part: str) -> Tensor:
        return self._labels.index_select(0, self._passes.orders.parts[part].to(self.device))


class _Batches(Dataset[Any]):
    """Whole batches as samples; what goes wrong is a text, because exceptions cross processes with their traceback."""

    def __init__(self, source: Stream) -> None:
        self._source = source

    def __getitem__(self, key: _Key) -> NDArray[Any] | str:
        seed, rows = key
        try:
            return self._source.stored(rows, seed)
        except UsageError as error:
            return str(error)


def _read(source: Stream, keys: list[_Key]) -> Iterator[NDArray[Any]]:
    workers = worker_count(source.workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more workers than processors: somebody has asked for them
        loader = DataLoader(
            _Batches(source),
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            collate_fn=_same,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # the global one is left alone
        )
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, str):
                raise UsageError(batch)
            yield batch
    finally:
        del batches  # ends the processes of a pass that is left early


def worker_count(wanted: int | None) -> int:
    """How many processes read: as many as wanted, by default one less than processors and at most four.

    None in the processes that evaluate candidates side by side, which may not start others.
    """
    if multiprocessing.current_process().daemon:
        return 0
    if wanted is not None:
        return wanted
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, processors - 1))


def _same(batch: Any) -> Any:
    """Batches come as they are: as arrays through a pipe, which need no shared memory."""
    return batch


def _ignore_interrupts(worker: int) -> None:
    """A first Ctrl-C, or another order to stop, lets the training go on to its next checkpoint, and so must they. They
    end with the pass, or with the process that they read for."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
