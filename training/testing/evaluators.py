"""Settings of evaluators, for studies that are made by hand."""

from __future__ import annotations

from nas_core.task import Task
from training.data.split import Split
from training.evaluators.supernet import SupernetSettings
from training.evaluators.train import TrainSettings
from training.recipe import recipe

DIGITS = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)


def on_digits() -> TrainSettings:
    """Candidates are trained on digits, by the usual recipe."""
    return TrainSettings(
        data="digits",
        split=Split(),
        recipe=recipe("quick", DIGITS),
        device="cpu",
        threads=1,
        deterministic=False,
        checkpoint_seconds=10.0,
    )


def on_supernet(study: str) -> SupernetSettings:
    """Candidates have the weights of the supernet of a study, whose file is nowhere."""
    return SupernetSettings(
        study=study,
        weights="nowhere.safetensors",
        sha256="",
        data="digits",
        split=Split(),
        split_hash="",
        precision="float32",
        threads=1,
        deterministic=False,
        device="cpu",
    )
