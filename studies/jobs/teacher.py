"""The trained network that another training learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.address import address_of, is_path
from studies.analysis.trained import addressed_training, trained_weights
from studies.jobs.stored import inputs_of
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store
from training.data import load
from training.data.split import Split
from training.networks import load_trained
from training.start import start_from
from training.teacher import Teacher, exported


def teacher_of(store: Store, text: str) -> Teacher:
    """The trained network that a text means: an exported one by its `.json`, or a training like `STUDY:17/train-2`, of
    `STUDY:17` the best.

    Raises NotFoundError where there is none, UsageError for another file, VerificationError for damaged weights.
    """
    if is_path(text) or Path(text).is_file():
        return exported(Path(text), text)
    study, trial, training = addressed_training(store, text)
    weights = trained_weights(store, study, trial, training)
    settings: Any = training.recipe
    space, _ = load_space(study.spec.space)
    source = load(settings["data"], Split(**settings["split"]))
    size = size_of(space, settings["size"])
    return Teacher(
        address_of(study, trial, training),
        start_from(weights, text).sha256,
        source.task,
        inputs_of(training, source),
        lambda: load_trained(space, trial.arch, source.task, size, weights, training.changes),
    )
