"""The base of every configuration and of all plain data that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys, plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # What stored settings mean by a field that they lack, where that is not its default: it was added later.
    when_absent: ClassVar[Mapping[str, Any]] = {}
