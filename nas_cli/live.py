"""Live progress on stderr: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from nas_core.failures import word
from nas_core.strategy import State
from studies.events import Counted, Event, Finished, Reported, Started

if TYPE_CHECKING:
    from nas_core.evaluation import Fidelity, Objective

PLAIN_SECONDS = 5.0  # between two plain lines


class Progress:
    """Listens to a search. Use as a context manager."""

    def __init__(
        self,
        name: str,
        objectives: tuple[Objective, ...],
        trials: int | None,
        fidelity: Fidelity | None = None,
    ) -> None:
        self.name = name
        self.fidelity = fidelity
        self.objectives = objectives
        self.trials = trials
        self.done = 0
        self.ended: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.best: tuple[float, int] | None = None
        self.running: dict[int, str] = {}
        self.begun = time.monotonic()
        self.first_done: int | None = None
        self._said, self._last = 0.0, ""
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
        elif kind is None:
            self._say(force=True)

    def known(self, done: int, best: tuple[float, int] | None) -> None:
        """What an earlier process had already found."""
        self.done, self.best = done, best

    # -- the listener -------------------------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.first_done = event.done if self.first_done is None else self.first_done
            self.running[event.number] = "starting"
        elif isinstance(event, Reported):
            metric = self.objectives[0].metric
            value = event.report.metrics.get(metric)
            learned = f", {metric} {value:.4f}" if value is not None else ""
            self.running[event.number] = f"{self._step(event)}{learned}"
            self._say()
        elif isinstance(event, Finished):
            self._finished(event)

    def _finished(self, event: Finished) -> None:
        self.running.pop(event.number, None)
        self.done = event.done
        verdict = event.verdict
        self.ended[verdict.state] += 1
        if verdict.state == State.FAILED:
            self.failures[word(verdict.reason)] += 1
        if verdict.state == State.REJECTED:
            self.rejections[word(verdict.reason)] += 1
        if verdict.values and verdict.feasible and (self.best is None or verdict.values[0] > self.best[0]):
            self.best = (verdict.values[0], event.number)
        self._say()

    # -- words --------------------------------------------------------------------------------------------

    def line(self) -> str:
        total = f"/{self.trials}" if self.trials else ""
        parts = [f"{self.name}: {self.done}{total} trials"]
        if self.best is not None:
            value, number = self.best
            objective = self.objectives[0]
            parts.append(f"best {objective.metric} {objective.orient(value):.4f} (trial {number})")
        if self.ended[State.REUSED]:
            parts.append(f"{self.ended[State.REUSED]} {State.REUSED}")
        if self.rejections:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.rejections.most_common())
            parts.append(f"rejected {self.rejections.total()}: {kinds}")
        if self.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
            parts.append(f"failed: {kinds}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " | ".join(parts)

    def _step(self, event: Reported) -> str:
        """`epoch 6/8`."""
        step = event.report.step
        return f"step {step:g}" if self.fidelity is None else f"{self.fidelity.unit} {step:g}/{event.target:g}"

    def _seconds_left(self) -> float | None:
        if self.trials is None or self.first_done is None or self.done <= self.first_done:
            return None
        pace = (time.monotonic() - self.begun) / (self.done - self.first_done)
        return pace * (self.trials - self.done) if self.done < self.trials else None

    def _say(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._live is None and (force or now - self._said >= PLAIN_SECONDS):
            running = [f"trial {number}: {what}" for number, what in sorted(self.running.items())]
            line = " | ".join([self.line(), *running])
            if line != self._last:  # at the end the last one may have been said already
                print(line, file=sys.stderr, flush=True)
            self._said, self._last = now, line

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        rows: list[Any] = [Text(self.line(), style="bold", overflow="ellipsis", no_wrap=True)]
        if self.trials:
            rows.append(ProgressBar(total=self.trials, completed=self.done, width=60))
        rows += [Text(f"  trial {number}: {what}") for number, what in sorted(self.running.items())]
        return Group(*rows)


class Tally:
    """A line on stderr: how many of something are finished, and how long the others will take."""

    def __init__(self, name: str, noun: str) -> None:
        self._name, self._noun = name, noun
        self._begun = time.monotonic()
        self._first: int | None = None
        self._said = -PLAIN_SECONDS
        self._terminal = sys.stderr.isatty()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Counted):
            self.count(event.done, event.total)

    def count(self, done: int, total: int) -> None:
        self._first = done if self._first is None else self._first
        now = time.monotonic()
        if not self._terminal and done < total and now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        line = f"{self._name}: {done}/{total} {self._noun}"
        if self._first < done < total:
            left = (now - self._begun) / (done - self._first) * (total - done)
            line += f" | {duration(left)} left"
        shown, end = (f"\r{line:<79}", "") if self._terminal else (line, "\n")
        print(shown, end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal and self._first is not None:
            print(file=sys.stderr)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
