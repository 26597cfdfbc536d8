"""A strategy's state as text and arrays: JSON that names arrays, and safetensors that hold them. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ARRAY = "__array__"


def pack(state: Mapping[str, Any]) -> tuple[str, bytes]:
    """The state (see `nas_core.strategy.Snapshots`) as JSON and safetensors; raises TypeError for others."""
    import numpy
    from safetensors.numpy import save

    arrays: dict[str, numpy.ndarray[Any, Any]] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, numpy.ndarray):
            name = str(len(arrays))
            arrays[name] = numpy.ascontiguousarray(value)
            return {ARRAY: [name, list(value.shape)]}
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"a snapshot's keys are text, got {list(value)[:3]}")
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if value is None or isinstance(value, str | int | float | bool):
            return value
        raise TypeError(f"a snapshot holds plain data and numpy arrays, got {type(value).__name__}")

    text = json.dumps(plain(state))
    return text, save(arrays)


def unpack(text: str, data: bytes) -> dict[str, Any]:
    """What `pack` was given, with lists for tuples."""
    from safetensors.numpy import load

    arrays = load(data)

    def rich(value: Any) -> Any:
        if isinstance(value, list):
            return [rich(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {ARRAY}:
            name, shape = value[ARRAY]
            return arrays[name].reshape(shape)
        return {key: rich(item) for key, item in value.items()}

    state: dict[str, Any] = rich(json.loads(text))
    return state


def digest(text: str, data: bytes) -> str:
    """SHA-256 of a packed state."""
    return hashlib.sha256(text.encode() + data).hexdigest()
