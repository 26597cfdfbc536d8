"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete

if TYPE_CHECKING:
    from studies.store.store import Store

DEFAULT_DB = "sqlite:///nas.db"

Db = Annotated[str, typer.Option("--db", envvar="NAS_DB", help="Study database (SQLAlchemy URL).")]
Files = Annotated[
    Path | None,
    typer.Option("--files", envvar="NAS_FILES", help="Folder for checkpoints and weights [default: beside the db]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="More metrics: f1, balanced_accuracy, roc_auc, average_precision, FILE.py:FUNCTION."),
]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study (see 'nas ls').", autocompletion=complete.studies)
]
Address = Annotated[
    str, typer.Argument(metavar="STUDY[:N]", help="A study, or its trial number N.", autocompletion=complete.studies)
]


def open_store(
    db: str, files: Path | None = None, *, create: bool = False, durable: bool = False, reading: bool = False
) -> Store:
    """The study database; a plain path means a SQLite file. What threatens the data there is said on stderr."""
    from studies.store.store import Store

    url = db if "://" in db else f"sqlite:///{db}"
    store = Store(url, files, create=create, durable=durable, reading=reading)
    for risk in () if reading else store.risks:
        print(f"nas: {risk}", file=sys.stderr)
    return store


def open_to_read(db: str, files: Path | None = None) -> Store:
    """The study database for a command that changes nothing in it."""
    return open_store(db, files, reading=True)
