"""What people are told on stderr while a command reads its data."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

PATIENCE = 2.0  # seconds of reading before anything is said of it
REFRESH = 0.1  # seconds between two states of the bar


class Told:
    """Warnings of data, and how far the reading of a large set is (`training.reading.Listener`): a bar on a terminal,
    a line every few seconds elsewhere. Use as a context manager."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._begun = self._shown = 0.0
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def warn(self, text: str) -> None:
        from nas_cli.render import clean

        print(f"nas: warning: {clean(text)}", file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._end()
            self._what, self._begun = what, now
        if done == total:
            self._end()
        elif now - self._begun > PATIENCE and now - self._shown > REFRESH:
            self._shown = now
            self._bar = self._bar or _bar(what)
            self._bar(done, total)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar(None, None)
        self._what = self._bar = None


def _bar(what: str) -> Any:
    """A function of (done, total) that shows them; of (None, None) that ends the showing."""
    from rich.console import Console

    from nas_cli.live import Tally

    console = Console(stderr=True)
    if not console.is_terminal:
        tally = Tally(what, "samples read")
        return lambda done, total: None if done is None else tally.count(done, total)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(f"reading {what}", total=None)
    bar.start()
    return lambda done, total: bar.stop() if done is None else bar.update(task, completed=done, total=total)
