"""Pictures of a training."""

from __future__ import annotations

import io
from pathlib import Path

from nas_core.errors import UsageError
from nas_core.files import write_atomically
from training.range_test import RangeTest

FORMATS = (".png", ".svg")


def check(file: Path) -> None:
    """Raises UsageError for a place where no picture can be written, before time is spent on it."""
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"--picture '{file}': the name of a picture ends in {' or '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise UsageError(f"--picture '{file}': there is no folder '{file.parent}'")


def draw(found: RangeTest, title: str, file: Path) -> None:
    """Write loss over learning rate with the suggested rates, PNG or SVG. Raises MachineError as `write_atomically`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.75", linewidth=0.8, label="loss of a batch")
    axes.plot(found.rates, found.smoothed, color="C0", label="smoothed")
    marks = [("top of the cycle", found.lr_max), ("its base", found.lr_base), ("steepest descent", found.steepest)]
    for number, (name, rate) in enumerate(marks, start=1):
        axes.axvline(rate, color=f"C{number}", linestyle="--", label=f"{name}: {rate:.3g}")
    highest, lowest = max(found.smoothed[0], found.smoothed[-1]), min(found.losses)
    axes.set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.3 * (highest - lowest))  # not the last explosion
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.set_title(title)
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format=file.suffix.lower().removeprefix("."), dpi=150)
    write_atomically(file, content.getvalue())
