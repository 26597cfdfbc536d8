"""`nas worker`: take what the driver of a study wants evaluated, on any machine that reaches its database."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store


def worker(
    study: StudyName,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or cuda:N, of the study's type.", autocompletion=complete.devices),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The same data at another place.")] = None,
    idle: Annotated[float, typer.Option(min=0, help="End after so many seconds without anything to do.")] = 600.0,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> int:
    """Evaluate candidates of a study that runs with --executor queue, one at a time, until there are none any more."""
    from nas_cli import render
    from nas_cli.signals import Stopper
    from nas_core.errors import MachineError, UsageError
    from studies.executors.queue_worker import QueueWorker, local
    from studies.store import SCHEMA

    with open_store(db, files, reading=True) as store:
        found = store.study(study)
        if store.schema != SCHEMA:
            raise MachineError(
                f"the database has schema {store.schema}, and this nas has {SCHEMA}; a worker upgrades nothing: "
                "install the driver's version of nas, or resume the study with this one first"
            )
    if found.spec.evaluator.facts.told:
        raise UsageError(f"the results of study '{study}' are told to it by nas tell, so there is nothing to evaluate")

    def say(text: str) -> None:
        print(f"nas: {text}", file=sys.stderr, flush=True)

    with open_store(db, files) as store, Stopper() as stopper:
        here = local(store, found, device, data)
        working = QueueWorker(store, found, here, idle=idle, stopping=stopper.stopping, say=say)
        working.run()
    if as_json:
        render.document({"study": study, "worker": working.name, "evaluated": working.done})
    else:
        render.emit(f"{study}: {working.done} evaluated by {working.name}")
    return 0
