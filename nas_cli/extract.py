"""`nas extract`: an architecture as a network of its own, with the weights that it shares in a supernet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas_cli.options import DEFAULT_DB, Address, Db, Files, Json, open_store


def extract(
    address: Address,
    out: Annotated[
        Path | None, typer.Option("--out", "--to", help="Folder for the files [default: extracted/STUDY-N].")
    ] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Write the network of STUDY:N (or of the study's best) with the weights that it has in the supernet.

    The study has trained a supernet, or searched on one (--evaluator supernet:STUDY). Load the network in Python by
    studies.extract.load_extracted(FOLDER); it is in the style of the supernet and not trained on its own.
    """
    from nas_cli.render import emit
    from studies.extract import CARD, trial_to_extract
    from studies.extract import extract as write

    with open_store(db, files, reading=True) as store:
        study, trial = trial_to_extract(store, address)
        folder = out or Path("extracted") / f"{study.name}-{trial.number}"
        paths = write(store, study, trial.arch, folder, trial.number)
    metrics = json.loads((folder / CARD).read_text(encoding="utf-8"))["metrics"]
    if as_json:
        found = {"trial": f"{study.name}:{trial.number}", "files": [str(path) for path in paths], "metrics": metrics}
        emit(json.dumps(found))
        return
    emit(*map(str, paths))
    learned = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "params")
    typer.echo(f"{learned}, {metrics['params']:,} parameters", err=True)
