"""A text on a device: whole as a tensor, windows by where they begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.task import Task
from training.data.loading import Loading
from training.data.passes import Orders
from training.data.scored import Scored
from training.data.split import Parts
from training.inputs.texts import TextInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Text(Protocol):
    """What is bound of a text (`training.data.text.TextSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def tokens(self) -> NDArray[np.int32]: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def inputs(self) -> TextInputs: ...


class BoundText(Scored):
    """Windows of a text for the fit loop (`nas_core.batch.Data`): inputs are (tokens [b, window] int64,), targets the
    tokens after them [b, window], see `Orders`. Windows are shuffled, their characters are not."""

    def __init__(self, source: Text, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        window, parts = source.inputs.window, source.parts
        starts = np.sort(np.concatenate([part for _, part in parts.items()]))
        numbers = Parts(*(np.searchsorted(starts, part) for _, part in parts.items()))
        strata = np.zeros(len(starts), np.int64)
        self._orders = Orders(strata, numbers, loading.batch_size, window * source.task.outputs)
        self._starts = torch.from_numpy(starts).to(self.device)
        self._tokens = torch.from_numpy(source.tokens).to(self.device)
        self._places = torch.arange(window + 1, device=self.device)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order of a training pass depends on (seed, epoch)."""
        now = self._orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            found = self._read(rows)
            yield Batch((found[:, :-1].contiguous(),), found[:, 1:].contiguous())

    def targets(self, part: str) -> Tensor:
        return self._read(self._orders.parts[part].to(self.device))[:, 1:]

    def _read(self, rows: Tensor) -> Tensor:
        """[rows, window + 1] int64."""
        return self._tokens[self._starts[rows][:, None] + self._places].long()
