"""`nas plot`: figures of a study, a trial or a bench, as files, or in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store

if TYPE_CHECKING:
    from reports.figure import Figure
    from reports.kind import Subject
    from reports.mirrored import Mirrored

FORMATS = (".png", ".svg", ".html")


def plot(
    address: Annotated[
        str,
        typer.Argument(
            metavar="STUDY[:N[/train-K]]|BENCH",
            help="A study, its trial number N, a training or compression of it, or a bench.",
            autocompletion=complete.studies,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="A,B,...",
            help="Kinds of figures, or 'all' that there can be [default: what shows most].",
            autocompletion=complete.figures,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A .png, .svg or .html file [default: in the terminal]; several get suffixes."
        ),
    ] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Draw what the database holds. Without --out in the terminal: as pictures where it can, else as blocks."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from reports import make
    from reports.addressed import addressed
    from reports.documents import document

    if out is not None:
        _check(out)
        if as_json:
            raise UsageError("--json prints the data of figures, --out writes their pictures; leave one of them out")
    with open_store(db, files, reading=True) as store:
        subject = addressed(store, address)
        names = _names(subject, kind)
        made = dict(zip(names, make.figures(subject, names), strict=True))
    if as_json:
        render.document(document(figure) for figure in made.values())
    elif out is None:
        from nas_cli import inline

        for figure in made.values():
            inline.show(figure)
    else:
        for path in _written(out, made, address):
            render.emit(f"figure: {path}")


def _names(subject: Subject, asked: str | None) -> list[str]:
    """The kinds that are asked for, each once. Raises UsageError for none."""
    from nas_core.errors import UsageError
    from reports import make

    if asked is None:
        return [make.first(subject)]
    if asked.strip() == "all":
        return make.possible(subject)
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    if not names:
        raise UsageError(f"--kind '{asked}' names none; it could be: {', '.join(make.possible(subject))}")
    return names


def _check(out: Path) -> None:
    """Raises UsageError for a place where no figure can be written."""
    from nas_core.errors import UsageError

    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out '{out}': figures are {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not out.parent.is_dir():
        raise UsageError(f"--out '{out}': there is no folder '{out.parent}'")
    if out.is_dir():
        raise UsageError(f"--out '{out}' is a folder; name a file in it")


def _written(out: Path, made: Mapping[str, Figure | Mirrored], address: str) -> Sequence[Path]:
    """Write one page, or a file per figure. Raises MachineError."""
    from nas_core.files import write_atomically
    from reports import matplotlib_figure, plotly_figure

    suffix = out.suffix.lower()
    if suffix == ".html":
        contents = {out: plotly_figure.page(list(made.values()), address).encode()}
    else:
        places = [out if len(made) == 1 else out.with_stem(f"{out.stem}-{_plain(name)}") for name in made]
        drawn = (matplotlib_figure.render(one, "png" if suffix == ".png" else "svg") for one in made.values())
        contents = dict(zip(places, drawn, strict=True))
    for path, content in contents.items():
        write_atomically(path, content)
    return list(contents)


def _plain(name: str) -> str:
    """The name of a kind as a part of a file's name: that of one's own may be `my.py:kind`."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
