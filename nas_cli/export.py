"""`nas export`: a retrained architecture as files that run without us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Address, Db, Files, Json
from nas_cli.options import open_to_read as open_store


def export(
    address: Address,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of onnx, pt2, safetensors, json, python, and int8 or fp16 of what was quantised so; comma-separated "
            "[default: all but python].",
            autocompletion=complete.formats,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files [default: export].")] = None,
    hub: Annotated[
        Path | None,
        typer.Option(help="Instead: folder for a model hub, as Hugging Face's has it, with a README.md for a card."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="'layer': that part alone, a module of PyTorch (--format python). 'task=NAME': the network of a task."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Load every file back in a fresh process and compare.")] = True,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bare network in onnx and pt2, which does not normalise its inputs.")
    ] = False,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Export the training with the best validation value of STUDY:N (or of the study's best trial), or the training
    STUDY:N/train-K or compression STUDY:N/compress-K, with a model card."""
    from nas_cli.render import emit
    from nas_core.errors import UsageError
    from nas_core.parts import OF_TASK
    from studies.address import address_of
    from studies.analysis.trained import addressed_training
    from studies.jobs.export import export_trial
    from studies.jobs.export_task import export_task

    if hub is not None and (out is not None or part is not None):
        other = "--part" if out is None else "--out"
        raise UsageError(f"--hub {hub} is the folder of a whole network; leave out {other}")
    out = out or hub or Path("export")
    if part is not None and not part.startswith(OF_TASK):
        _export_part(address, part, formats, out, verify, raw, db, files, as_json)
        return
    with open_store(db, files) as store:
        study, trial, training = addressed_training(store, address)
        chosen = None if formats is None else [name.strip() for name in formats.split(",") if name.strip()]
        place = None if store.shareable == DEFAULT_DB else store.shareable
        if part is None:
            of = store, study, trial, training
            paths = export_trial(*of, chosen, out, verify=verify, raw=raw, db=place, hub=hub is not None)
        else:
            paths = export_task(store, study, trial, training, part, chosen, out, verify=verify, raw=raw, db=place)
    if as_json:
        emit(
            json.dumps(
                {
                    "trial": address_of(study, trial),
                    "training": address_of(study, trial, training),
                    "files": [str(path) for path in paths],
                }
            )
        )
        return
    emit(*map(str, paths))


def _export_part(
    address: str,
    part: str,
    formats: str | None,
    out: Path,
    verify: bool,
    raw: bool,
    db: str,
    files: Path | None,
    as_json: bool,
) -> None:
    """`--part`: a file of source, of an architecture that need not be trained."""
    from nas_cli.render import emit
    from nas_core.errors import UsageError
    from studies.address import address_of
    from studies.analysis.queries import addressed_trial
    from studies.jobs.export_part import export_part

    if formats != "python":
        raise UsageError(f"--part {part} is written as Python alone; add --format python")
    if raw:
        raise UsageError(f"--part {part} has no inputs to be normalised; leave out --raw")
    with open_store(db, files) as store:
        study, trial = addressed_trial(store, address)
        path = export_part(store, study, trial, part, out, verify=verify)
    emit(json.dumps({"trial": address_of(study, trial), "files": [str(path)]}) if as_json else str(path))
