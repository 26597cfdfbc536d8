"""Live progress of a supernet's training on stderr: a panel with the weights as a heat map, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from nas_cli.heat import beside, heat_map, legend
from nas_cli.live import PLAIN_SECONDS, duration
from studies.analysis.operations import operations
from studies.events import EpochEnded, Event

if TYPE_CHECKING:
    from nas_core.architecture import Architecture
    from nas_core.config import SizeConfig
    from nas_core.records import Epoch
    from nas_core.space import SearchSpace
    from nas_core.task import Task

SHORT = 3  # lines of the panel that the text of an architecture may take
LARGE = 1_000  # metrics from here on are shown without decimals
PLAIN = 160  # characters of it in a plain line


class SupernetProgress:
    """Listens to a supernet's training. Use as a context manager."""

    def __init__(self, name: str, space: SearchSpace, size: SizeConfig, task: Task) -> None:
        self.name, self.space, self.size, self.task = name, space, size, task
        self.last: Epoch | None = None
        self.total = 0
        self.since = 0  # the epoch that derived the present architecture, as far as this process knows
        self._first: tuple[int, float] | None = None
        self._options: dict[str, tuple[str, ...]] = {}
        self._said, self._said_epoch = 0.0, 0
        self._told: Architecture | None = None
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
        elif kind is None and self.last is not None and self.last.number != self._said_epoch:
            self._say()

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochEnded):
            self._epoch(event.epoch, event.total)

    def _epoch(self, epoch: Epoch, total: int) -> None:
        if epoch.strengths.keys() != self._options.keys():
            self._options = operations(self.space, self.size, self.task, epoch.strengths)
        if self.last is None or self.last.arch != epoch.arch:
            self.since = epoch.number
        self.last, self.total = epoch, total
        self._first = self._first or (epoch.number, time.monotonic())
        if self._live is None and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._say()

    def line(self) -> str:
        """The epoch, its metrics, and how long the others will take."""
        parts = [self._head()]
        if self.last is not None:
            parts.append(self._metrics())
        left = self._seconds_left()
        return " | ".join(parts if left is None else [*parts, f"{duration(left)} left"])

    def _head(self) -> str:
        if self.last is None:
            return f"{self.name}: the supernet's first epoch"
        return f"{self.name}: supernet epoch {self.last.number}/{self.total}"

    def _metrics(self) -> str:
        return (
            "" if self.last is None else ", ".join(f"{name} {value:.4g}" for name, value in self.last.metrics.items())
        )

    def _seconds_left(self) -> float | None:
        if self.last is None or self._first is None or not self._first[0] < self.last.number < self.total:
            return None
        pace = (time.monotonic() - self._first[1]) / (self.last.number - self._first[0])
        return pace * (self.total - self.last.number)

    def _say(self) -> None:
        """A plain line; the derived architecture where it is another than in the line before."""
        self._said, self._said_epoch = time.monotonic(), 0 if self.last is None else self.last.number
        parts = [self.line()]
        if self.last is not None and self.last.arch not in (None, self._told):
            self._told = self.last.arch
            parts.append(f"derives {_cut(self._text(), PLAIN)}")
        print(" | ".join(parts), file=sys.stderr, flush=True)

    def _text(self) -> str:
        """The architecture that would be derived now."""
        from nas_core.space import HasNotation

        if self.last is None or self.last.arch is None:
            return ""
        arch = self.last.arch
        if isinstance(self.space, HasNotation):
            return self.space.to_text(arch)
        return " ".join(f"{name}={value}" for name, value in arch.values.items())

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        left = self._seconds_left()
        head = self._head() if left is None else f"{self._head()} | {duration(left)} left"
        rows: list[Any] = [Text(head, style="bold", overflow="ellipsis", no_wrap=True)]
        if self.last is None:
            return Group(*rows)
        width, height = self._live.console.size if self._live is not None else (80, 24)
        rows.append(Padding(ProgressBar(total=self.total, completed=self.last.number, width=60), (0, 0, 0, 2)))
        rows.append(Text(f"  {self._metrics()}", overflow="ellipsis", no_wrap=True))
        if self.last.arch is not None:
            text = f"derives, since epoch {self.since}: {self._text()}"
            rows.append(Text(f"  {_cut(text, SHORT * (width - 2))}"))
        if self.last.strengths:
            taken = None if self.last.arch is None else self.space.assignment(self.last.arch)
            below = [Text(f"  {line}") for line in legend(self._options)]
            room = height - len(rows) - len(below) - SHORT - 1
            one = heat_map(self.last.strengths, self._options, taken)
            lines = one if len(one) <= room else heat_map(self.last.strengths, self._options, taken, heads=False)
            rows += [Text(f"  {line}", overflow="ellipsis", no_wrap=True) for line in beside(lines, width - 2, room)]
            rows += below
        return Group(*rows)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 4]} ..."
