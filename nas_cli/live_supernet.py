"""Live progress of a supernet's training on stderr: a panel with the weights as a heat map, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from nas_cli.heat import heat_map
from nas_cli.live import PLAIN_SECONDS, duration

if TYPE_CHECKING:
    from nas_core.records import Epoch
    from nas_core.space import SearchSpace


class SupernetProgress:
    """Listens to a supernet's training. Use as a context manager."""

    def __init__(self, name: str, space: SearchSpace) -> None:
        self.name, self.space = name, space
        self.last: Epoch | None = None
        self.total = 0
        self._first: tuple[int, float] | None = None
        self._said = 0.0
        self._live: Any = None

    def __enter__(self) -> Self:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None and self.last is not None:
            self._say()

    def epoch(self, epoch: Epoch, total: int) -> None:
        self.last, self.total = epoch, total
        self._first = self._first or (epoch.number, time.monotonic())
        if self._live is None and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._say()

    def line(self) -> str:
        if self.last is None:
            return f"{self.name}: the supernet's first epoch"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.last.metrics.items())
        parts = [f"{self.name}: supernet epoch {self.last.number}/{self.total}", metrics]
        if self._first is not None and self.last.number > self._first[0] and self.last.number < self.total:
            pace = (time.monotonic() - self._first[1]) / (self.last.number - self._first[0])
            parts.append(f"{duration(pace * (self.total - self.last.number))} left")
        return " | ".join(parts)

    def _say(self) -> None:
        self._said = time.monotonic()
        print(" | ".join([self.line(), *self._derived()]), file=sys.stderr, flush=True)

    def _derived(self) -> list[str]:
        from nas_core.space import HasNotation

        if self.last is None or self.last.arch is None:
            return []
        arch = self.last.arch
        return [self.space.to_text(arch) if isinstance(self.space, HasNotation) else str(dict(arch.values))]

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        rows: list[Any] = [Text(self.line(), style="bold", overflow="ellipsis", no_wrap=True)]
        if self.last is not None:
            rows.append(ProgressBar(total=self.total, completed=self.last.number, width=60))
            rows += [Text(f"  {text}", overflow="ellipsis", no_wrap=True) for text in self._derived()]
            rows += [Text(f"  {row}") for row in heat_map(self.last.scores)]
        return Group(*rows)
