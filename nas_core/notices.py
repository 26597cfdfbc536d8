"""How a program that people look at shows what the packages below it have to say."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nas_core.errors import Notice


@contextmanager
def notices() -> Iterator[None]:
    """Print each `Notice` once, as a line on stderr; other warnings look as they always do."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
            if issubclass(category, Notice):
                print(f"nas: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)  # type: ignore[arg-type]

        warnings.simplefilter("once", Notice)
        warnings.showwarning = show  # put back by `catch_warnings`
        yield
