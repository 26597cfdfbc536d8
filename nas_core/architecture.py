"""Architectures: small, immutable data. Tokens, graphs and modules are views computed from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nas_core.choice import Value

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Architecture:
    """The values of a space's active choices, in the order in which the space declares them.

    Equality and hash go by `key`: the first 16 hexadecimal digits of the SHA-256 of `to_json()`.
    """

    __slots__ = ("_key", "space", "values")

    space: str
    values: Mapping[str, Value]
    _key: str | None

    def __init__(self, space: str, values: Mapping[str, Value]) -> None:
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "values", MappingProxyType(dict(values)))
        object.__setattr__(self, "_key", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an architecture is immutable: cannot set '{name}'")

    @property
    def key(self) -> str:
        key = self._key
        if key is None:
            key = hashlib.sha256(self.to_json().encode()).hexdigest()[:16]
            object.__setattr__(self, "_key", key)
        return key

    def to_json(self) -> str:
        """Canonical JSON: the same text for the same architecture, on every machine."""
        return _ENCODER.encode({"space": self.space, "values": dict(self.values)})

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture that `to_json` wrote. Raises ValueError for any other text."""
        try:
            data = json.loads(text)
            return cls(data["space"], {str(name): value for name, value in data["values"].items()})
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the JSON of an architecture: {text[:80]!r}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Architecture({self.space}, {dict(self.values)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Architecture, (self.space, dict(self.values)))
