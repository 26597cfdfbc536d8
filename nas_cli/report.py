"""`nas report`: what a database holds of a study, a run or a bench, as one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, open_store


def report(
    address: Annotated[
        str,
        typer.Argument(
            metavar="STUDY[:N[/compress-K]]|BENCH",
            help="A study, its trial number N, a training or compression of it, or a bench.",
            autocompletion=complete.studies,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file.")] = Path("report.html"),
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it as .pdf too, where Chromium is installed.")] = False,
    db: Db = DEFAULT_DB,
    files: Files = None,
) -> None:
    """Write a report: one HTML file, with its figures, that opens offline."""
    from nas_cli import render
    from nas_core import distribution
    from nas_core.files import write_atomically
    from reports import files as places
    from reports.addressed import addressed
    from reports.pages import html, page_of
    from reports.pages import pdf as printer

    places.check("--out", out, (".html",), "reports")
    if pdf:
        printer.browser()
    with open_store(db, files, reading=True) as store:
        page = page_of(addressed(store, address))
    text = html.written(page, f"made by {distribution.NAME} {distribution.version()}")
    write_atomically(out, text.encode())
    render.emit(f"report: {out}")
    if pdf:
        printer.printed(text, out.with_suffix(".pdf"))
        render.emit(f"report: {out.with_suffix('.pdf')}")
