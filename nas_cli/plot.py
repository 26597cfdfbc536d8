"""`nas plot`: figures of a study, a trial or a bench, as files, or in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store

if TYPE_CHECKING:
    from reports.kind import Subject


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
    from reports import files as written
    from reports import make
    from reports.addressed import addressed
    from reports.documents import document

    if out is not None:
        written.check("--out", out, written.PAGES)
        if as_json:
            raise UsageError("--json prints the data of figures, --out writes their pictures; leave one of them out")
    with open_store(db, files, reading=True) as store:
        subject = addressed(store, address)
        if kind is not None and kind.strip() == "all":
            made, missing = make.every(subject)
            for reason in missing:
                print(f"nas: {reason}", file=sys.stderr)
        else:
            names = _names(subject, kind)
            made = dict(zip(names, make.figures(subject, names), strict=True))
    if as_json:
        render.document(document(figure) for figure in made.values())
    elif out is None:
        from nas_cli import inline

        for figure in made.values():
            inline.show(figure)
    else:
        for path in written.write(out, made, address):
            render.emit(f"figure: {path}")


def _names(subject: Subject, asked: str | None) -> list[str]:
    """The kinds that are asked for, each once. Raises UsageError for none."""
    from nas_core.errors import UsageError
    from reports import make

    if asked is None:
        return [make.first(subject)]
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    if not names:
        raise UsageError(f"--kind '{asked}' names none; it could be: {', '.join(make.possible(subject))}")
    return names
