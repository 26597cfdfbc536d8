"""What is stored of the runs that jobs make: settings, seeds, files and models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.records import Run
from nas_core.seeds import derive
from studies.records import Study
from studies.store.store import Store
from studies.store.tables import is_kind

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.inputs import Inputs

WEIGHTS = "weights"
REPORT = "compression"
"""The kind of the file that says what was done to each part of a network."""
IMPORTED = "imported"
"""Under this name a training that has taken given weights says from where, and trains nothing."""
EXAMPLE = "example"
"""Under this name a compression says which function of the user's gives the inputs that its network is traced with."""
INPUTS = "inputs"
"""What the network of a run needs to know of its inputs: stored beside the settings, and tells no two runs apart."""


def settings_of(run: Run) -> dict[str, Any]:
    """What makes two runs of a job the same."""
    return {key: value for key, value in (run.recipe or {}).items() if key != INPUTS}


def seed_of(study: Study, trial: Run, kind: str, repeat: int) -> int:
    """The seed of a run of a job on a trial's network: its weights and the order of its batches come from it."""
    return derive(study.spec.seed, trial.number, kind, repeat)


def inputs_of(run: Run, source: Source) -> Inputs | None:
    """What the network of a run needs to know of its inputs: as it was stored, else (trainings of earlier versions) as
    its data say. None where a source of a class of one's own does not say."""
    from training.inputs import inputs_from

    stored = (run.recipe or {}).get(INPUTS)
    return getattr(source, "inputs", None) if stored is None else inputs_from(stored)


def weights_of(store: Store, run: Run) -> Path | None:
    """The weights that a run left, if they are still what was written."""
    return file_of(store, run, WEIGHTS)


def file_of(store: Store, run: Run, kind: str) -> Path | None:
    """The file of a kind that a run left, if it is still what was written."""
    for artifact in store.artifacts(run):
        path = store.files / artifact.path
        if is_kind(artifact, kind) and path.is_file():
            return path if hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256 else None
    return None


def parts_of(store: Store, run: Run) -> list[dict[str, Any]]:
    """What a compression has done to each part of the network, by round; empty where its file is gone."""
    for artifact in store.artifacts(run):
        path = store.files / artifact.path
        if is_kind(artifact, REPORT) and path.is_file():
            found: list[dict[str, Any]] = json.loads(path.read_text())["rounds"]
            return found
    return []


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a job that has ended; where a process is killed before, the next one does."""
    for path in folder.rglob("checkpoint-*"):
        path.unlink(missing_ok=True)
