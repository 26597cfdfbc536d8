"""Progress of one training on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from nas_core.evaluation import Report
    from nas_core.records import Run


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
    """Progress of a job with several seeds (`studies.jobs.run.Listener`), one line for each that runs."""

    def __init__(self, steps: float, seeds: int, what: str) -> None:
        self._steps, self._seeds, self._what = steps, seeds, what
        self._lines: dict[int, Line] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines.values():
            line.end()

    def reported(self, run: Run, report: Report) -> None:
        if run.id not in self._lines:
            self._lines[run.id] = Line(f"{self._what} seed {run.repeat + 1}/{self._seeds}")
        self._lines[run.id].show(report, self._steps)

    def finished(self, run: Run) -> None:
        line = self._lines.pop(run.id, None)
        if line is not None:
            line.end()
