"""Spaces by what they were asked for with, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_core.config import SizeConfig
from nas_core.space import SearchSpace
from training import spaces
from training.reading import once


def load_space(reference: str) -> tuple[SearchSpace, str | None]:
    """A space, and the hash of its file where a user wrote it; while a command reads, the same one at every call.
    Raises UsageError or NotFoundError."""
    return once(("space", reference, Path.cwd()), lambda: _load(reference))


def size_of(space: SearchSpace, size: str | Mapping[str, Any]) -> SizeConfig:
    """A size of a space from its text or its stored fields (`SizeConfig.parse`). Raises UsageError."""
    return space.Size.parse(size)


def _load(reference: str) -> tuple[SearchSpace, str | None]:
    loaded = spaces.load(reference)
    return loaded.object, loaded.file_hash
