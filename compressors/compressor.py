"""The contract of a compression method. What it needs is here; it neither trains nor stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core.config import Config
from nas_core.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas_core.batch import Data


@dataclass(frozen=True, slots=True)
class Subject:
    """What a method may look at beside the network: its task, the data that it is trained on (on `device`, the parts
    "train" and "valid"), and the seed from which anything random comes, together with the round."""

    task: Task
    data: Data
    device: torch.device
    seed: int


class Compressor(Protocol):
    """A compression method. `Config` documents its settings; `rounds` is how often the network is changed, and trained
    after each time. Made anew by every process: a method keeps nothing from one round to the next but what it has
    left in the network.
    """

    Config: ClassVar[type[Config]]
    rounds: int

    def __init__(self, subject: Subject, config: Any) -> None:
        """Raises UsageError for settings that do not fit the subject."""
        ...

    def compress(self, network: nn.Module, round: int) -> None:
        """Make the network smaller, in place; it is on the device, in evaluation mode, with the weights of the training
        before. `round` counts from 0.

        It may set attributes that modules hold as numbers, words or tuples of them (`conv.out_channels = 12`), give
        parameters and buffers other shapes, and put layers of `training.changes.LAYERS` in the place of modules: from
        that the network is rebuilt. Raises UsageError where there is nothing to do.
        """
        ...
