"""The base of every configuration and of all plain data that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

JsonObject = dict[str, JsonValue]
"""Plain data that only its owner can type: the fields of a size, the settings of a strategy."""


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys, plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # What stored settings mean by a field that they lack, where that is not its default: it was added later.
    when_absent: ClassVar[Mapping[str, Any]] = {}
    # Fields by the names that they had before, which stored data and files of users may hold.
    earlier_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _under_their_names_of_now(cls, given: Any) -> Any:
        if not cls.earlier_keys or not isinstance(given, Mapping):
            return given
        return {cls.earlier_keys.get(key, key): value for key, value in given.items()}
