"""Sources of users as they were written before `Loading`, for one release."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from nas_core.deprecated import told
from training.data.loading import DEFAULT, Loading

if TYPE_CHECKING:
    import torch

    from nas_core.batch import Data
    from training.data.protocol import Source


def as_now(source: Any) -> Source:
    """The source; one whose `bind(device, batch_size, augment, channels_last)` is that of before, with that of now."""
    names = inspect.signature(source.bind).parameters.keys()
    if "batch_size" not in names:
        found: Source = source
        return found
    told(f"{type(source).__name__}.bind(device, batch_size, ...)", "bind(device, loading)")
    return Earlier(source, names & Loading.model_fields.keys())


class Earlier:
    """A source that is bound with single options: those of `Loading` that it names."""

    def __init__(self, source: Any, options: set[str]) -> None:
        self._source, self._options = source, options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        bound: Data = self._source.bind(device, **{name: getattr(loading, name) for name in self._options})
        return bound
