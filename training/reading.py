"""While a command, or a call from Python, reads: nothing is read twice, and what a person should know is told.

Outside of `reading` (in a library, in the processes that evaluate candidates) data are read anew and in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Listener(Protocol):
    def warn(self, text: str) -> None:
        """One sentence about the data that a person should know."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """So many of the samples of `what` have been read."""
        ...


@dataclass(frozen=True, slots=True)
class _Reading:
    listener: Listener
    known: dict[Any, Any] = field(default_factory=dict)


_READING: ContextVar[_Reading | None] = ContextVar("reading", default=None)


class Silent:
    """A listener that tells nobody."""

    def warn(self, text: str) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...


@contextmanager
def reading(listener: Listener) -> Iterator[None]:
    """Within it every space, data set and table is read once, and `listener` hears of it."""
    token = _READING.set(_Reading(listener))
    try:
        yield
    finally:
        _READING.reset(token)


def once(key: object, read: Callable[[], T], warnings: Callable[[T], Iterable[str]] = lambda _: ()) -> T:
    """What `read` returns, or has returned before under this key; its warnings are told the first time."""
    now = _READING.get()
    if now is None:
        return read()
    if key not in now.known:
        found = now.known[key] = read()
        for text in warnings(found):
            now.listener.warn(text)
    result: T = now.known[key]
    return result


def counted(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items; how many of them have gone by is told."""
    now = _READING.get()
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items):
        if now is not None:
            now.listener.progress(what, done, count)
        yield item
    if now is not None:
        now.listener.progress(what, count, count)
