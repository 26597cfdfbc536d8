"""What searches cache for one another (`Setting.cache`), where several processes may make it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class SharedByProcesses(Protocol):
    """What is cached where other processes find it."""

    def alone(self, key: str) -> AbstractContextManager[None]:
        """Wait until no other process is inside for `key`. May be entered again within; a process that dies leaves."""
        ...


def alone(cache: MutableMapping[str, Mapping[str, Any]], key: str) -> AbstractContextManager[None]:
    """Inside no other process makes what belongs to `key`: look there whether it is made before making it.

    That saves time only: whoever does not ask gets the same.
    """
    return cache.alone(key) if isinstance(cache, SharedByProcesses) else nullcontext()


class Prefixed(MutableMapping[str, Mapping[str, Any]]):
    """The part of a cache whose keys begin with a prefix, without it."""

    def __init__(self, cache: MutableMapping[str, Mapping[str, Any]], prefix: str) -> None:
        self._cache, self._prefix = cache, prefix

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._cache[self._prefix + key]

    def __setitem__(self, key: str, value: Mapping[str, Any]) -> None:
        self._cache[self._prefix + key] = value

    def __delitem__(self, key: str) -> None:
        del self._cache[self._prefix + key]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(self._prefix) for key in self._cache if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
