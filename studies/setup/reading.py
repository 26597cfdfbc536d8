"""What one command has read: every space, every data set and every table once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import search_spaces
from nas_core import refs
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.space import SearchSpace
from training.data.split import Split

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.evaluators.table import Table

T = TypeVar("T")


class Reading:
    """Spaces, data and tables by what they were asked for with; the second time they are those of the first."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def space(self, reference: str) -> tuple[SearchSpace, str | None]:
        """A space, and the hash of its file where a user wrote it. Raises UsageError or NotFoundError."""
        return self._once(("space", reference), lambda: _space(reference))

    def source(self, reference: str, split: Split) -> Source:
        """Data, divided. Raises as `training.data.load`."""
        from training.data import load

        return self._once(("data", reference, split), lambda: load(reference, split))

    def table(self, space: SearchSpace, file: str, data: str, mapping: str | None) -> Table:
        """A table of results for a space that `space` gave. Raises as `training.evaluators.table.Table`."""
        from training.evaluators.table import Table

        return self._once(("table", id(space), file, data, mapping), lambda: Table(space, Path(file), data, mapping))

    def _once(self, key: Hashable, read: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = read()
        found: T = self._known[key]
        return found


def load_space(reference: str) -> tuple[SearchSpace, str | None]:
    """A space, and the hash of its file where a user wrote it. Raises UsageError or NotFoundError."""
    return Reading().space(reference)


def size_of(space: SearchSpace, size: str | Mapping[str, Any]) -> SizeConfig:
    """A size of a space from its text or its stored fields (`SizeConfig.parse`). Raises UsageError."""
    return space.Size.parse(size)


def _space(reference: str) -> tuple[SearchSpace, str | None]:
    loaded = refs.load(reference, search_spaces.BUILTIN, search_spaces.GROUP, "space")
    missing = [name for name in ("name", "choices", "tasks", "build") if not hasattr(loaded.object, name)]
    if missing:
        raise UsageError(f"space '{reference}' has no {', '.join(missing)}; see examples/my_space.py")
    return loaded.object, loaded.file_hash
