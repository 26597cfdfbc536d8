"""Questions on a device: whole as tensors, batches by index."""

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

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Questions(Protocol):
    """What is bound of questions (`training.data.questions.QuestionSource`)."""

    @property
    def task(self) -> Task: ...
    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> NDArray[np.int64]: ...
    @property
    def parts(self) -> Parts: ...


class BoundQuestions(Scored):
    """Questions for the fit loop (`nas_core.batch.Data`): inputs are (tokens [b, t] int64,), targets [b] first place
    times t plus last place, see `Orders`."""

    def __init__(self, source: Questions, device: torch.device | str, loading: Loading) -> None:
        super().__init__(source.task)
        self.device = torch.device(device)
        strata = np.zeros(len(source.targets), np.int64)
        self._orders = Orders(strata, source.parts, loading.batch_size, source.tokens.shape[1])
        self._tokens = torch.from_numpy(source.tokens).to(self.device)
        self._targets = torch.from_numpy(source.targets).to(self.device)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """One pass over `part`; the order of a training pass depends on (seed, epoch)."""
        now = self._orders.of(part, epoch, seed)
        for rows in now.order.to(self.device).split(now.batch_size):
            yield Batch((self._tokens.index_select(0, rows),), self._targets.index_select(0, rows))

    def targets(self, part: str) -> Tensor:
        return self._targets.index_select(0, self._orders.parts[part].to(self.device))
