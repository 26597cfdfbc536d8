"""`nas mirror`: a study for the faces that others have made."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nas_cli.options import DEFAULT_DB, Db, StudyName, open_store


def mirror(
    study: StudyName,
    optuna: Annotated[str, typer.Option("--optuna", metavar="URL", help="Optuna's storage: sqlite:///optuna.db")],
    name: Annotated[str | None, typer.Option("--name", help="Of the study there [default: the same].")] = None,
    db: Db = DEFAULT_DB,
) -> None:
    """Write a study as Optuna stores one, with its front and constraints; called again it adds what is new."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from reports.optuna_mirror import mirror as write
    from studies.documents import View

    if "://" not in optuna:
        raise UsageError(f"--optuna '{optuna}' is no database URL; write sqlite:///FILE")

    def progress(count: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{count:,} trials", end="", file=sys.stderr)

    with open_store(db, reading=True) as store:
        new, total = write(store, View.of(store.study(study)), optuna, name or study, progress)
    if sys.stderr.isatty() and new:
        print(file=sys.stderr)
    render.emit(f"mirror: {new:,} new trials, {total:,} in all; look at them by: optuna-dashboard {optuna}")
