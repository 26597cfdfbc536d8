"""Spaces by what they were asked for with, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import search_spaces
from nas_core import refs
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.space import SearchSpace
from training.reading import once


def load_space(reference: str) -> tuple[SearchSpace, str | None]:
    """A space, and the hash of its file where a user wrote it; while a command reads, the same one at every call.
    Raises UsageError or NotFoundError."""
    return once(("space", reference, Path.cwd()), lambda: _load(reference))


def size_of(space: SearchSpace, size: str | Mapping[str, Any]) -> SizeConfig:
    """A size of a space from its text or its stored fields (`SizeConfig.parse`). Raises UsageError."""
    return space.Size.parse(size)


def _load(reference: str) -> tuple[SearchSpace, str | None]:
    loaded = refs.load(reference, search_spaces.BUILTIN, search_spaces.GROUP, "space")
    missing = [name for name in ("name", "choices", "tasks", "build") if not hasattr(loaded.object, name)]
    if missing:
        raise UsageError(f"space '{reference}' has no {', '.join(missing)}; see examples/my_space.py")
    return loaded.object, loaded.file_hash
