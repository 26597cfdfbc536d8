"""Progress of one training on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from studies.events import Event


class Line:
    """Progress on stderr: one line that is rewritten on a terminal, one every few seconds elsewhere."""

    def __init__(self, what: str, unit: str = "epoch") -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._what, self._unit = what, unit
        self._said = 0.0

    def show(self, report: Any, high: float) -> None:
        import time

        interval = 0.2 if self._console.is_terminal else 10.0
        if time.monotonic() - self._said < interval and report.step < high:
            return
        self._said = time.monotonic()
        learned = ("train_", "val_", "test_", "smoothed_")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in report.metrics.items() if name.startswith(learned))
        text = f"{self._what}: {self._unit} {report.step:g}/{high:g}: {shown}"
        self._console.print(text, end="\r" if self._console.is_terminal else "\n", soft_wrap=True)

    def end(self) -> None:
        if self._console.is_terminal:
            self._console.print()


class Progress:
    """Progress of a job on what is at an address (`studies.events.Listener`), a line for each run of it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lines: dict[int, Line] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines.values():
            line.end()

    def __call__(self, event: Event) -> None:
        from studies.address import WORDS
        from studies.events import Finished, Reported

        match event:
            case Reported(kind, number, report, target):
                name = f"{self._address}/{WORDS[kind]}-{number}"
                self._lines.setdefault(number, Line(name)).show(report, report.step if target is None else target)
            case Finished(_, number):
                line = self._lines.pop(number, None)
                if line is not None:
                    line.end()
