"""Figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas_core.errors import UsageError
from reports.figure import Figure
from reports.mirrored import Mirrored

PICTURES = (".png", ".svg")
PAGES = (*PICTURES, ".html")


def check(option: str, file: Path, suffixes: Sequence[str] = PICTURES, what: str = "figures") -> None:
    """Raises UsageError for a place where none of `what` can be written, before time is spent on it."""
    if file.suffix.lower() not in suffixes:
        listed = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise UsageError(f"{option} '{file}': {what} are {listed}")
    if not file.parent.is_dir():
        raise UsageError(f"{option} '{file}': there is no folder '{file.parent}'")
    if file.is_dir():
        raise UsageError(f"{option} '{file}' is a folder; name a file in it")


def write(file: Path, figures: Mapping[str, Figure | Mirrored], title: str) -> list[Path]:
    """Write one page of all figures, or a picture of each: which files. Several pictures get their names as suffixes.

    Raises MachineError where one cannot be written, or what draws them is not installed.
    """
    from nas_core.files import write_atomically

    suffix = file.suffix.lower()
    if suffix == ".html":
        from reports import plotly_figure

        contents = {file: plotly_figure.page(list(figures.values()), title).encode()}
    else:
        from reports import matplotlib_figure

        places = [file if len(figures) == 1 else file.with_stem(f"{file.stem}-{_plain(name)}") for name in figures]
        drawn = [matplotlib_figure.render(one, "png" if suffix == ".png" else "svg") for one in figures.values()]
        contents = dict(zip(places, drawn, strict=True))
    for path, content in contents.items():
        write_atomically(path, content)
    return list(contents)


def _plain(name: str) -> str:
    """The name of a kind as a part of a file's name: that of one's own may be `my.py:kind`."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
