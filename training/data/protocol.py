"""What every data reference resolves to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from nas_core.task import Task
from training.data.loading import DEFAULT, Loading
from training.inputs.base import Inputs

if TYPE_CHECKING:
    import torch

    from nas_core.batch import Data


class Source(Protocol):
    """What a data reference resolves to; a loader of one's own returns `image_source(...)` or `graph_source(...)`."""

    @property
    def reference(self) -> str: ...
    @property
    def task(self) -> Task: ...
    @property
    def split_hash(self) -> str: ...
    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of samples (or labelled nodes) per part."""
        ...

    @property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """Samples per class for each part."""
        ...

    @property
    def inputs(self) -> Inputs:
        """What a network that is trained on it needs to know of its inputs, wherever it runs later."""
        ...

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """The data on a device, ready for the fit loop; raises UsageError where an option does not fit the data."""
        ...
