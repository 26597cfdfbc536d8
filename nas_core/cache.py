"""What searches cache for one another (`Setting.cache`), where several processes may make it at once."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
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
