"""Old names that go on working for one release, with a DeprecationWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def renamed(**names: str) -> Callable[[Class], Class]:
    """A class whose attributes, methods and keywords of the constructor answer under old names too:
    `renamed(old="new")`."""

    def decorate(cls: Class) -> Class:
        made: Callable[..., None] = cls.__init__  # type: ignore[misc]

        @functools.wraps(made)
        def init(self: Any, *args: Any, **given: Any) -> None:
            for old, new in names.items():
                if old in given:
                    told(f"{cls.__name__}({old}=...)", f"{new}=...")
                    given[new] = given.pop(old)
            made(self, *args, **given)

        cls.__init__ = init  # type: ignore[misc]
        for old, new in names.items():
            setattr(cls, old, property(_reader(f"{cls.__name__}.{old}", new)))
        return cls

    return decorate


def told(old: str, new: str) -> None:
    """Warn the caller's caller that it uses an old name."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, stacklevel=3)


def _reader(old: str, new: str) -> Callable[[Any], Any]:
    def read(self: Any) -> Any:
        told(old, new)
        return getattr(self, new)

    return read
