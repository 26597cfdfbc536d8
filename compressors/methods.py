"""What whoever applies a compression method needs around it: the class of a name, costs, recalibration."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import compressors
from nas_core import refs
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from compressors.compressor import Compressor
    from nas_core.task import Task
    from training.evaluators.train import Train

METHOD = "compression method"
RECALIBRATION = 32  # training batches whose statistics batch normalisations get after a removal


def method(reference: str) -> type[Compressor]:
    """The class of a compression method. Raises UsageError for what is none."""
    found = refs.find(reference, compressors.BUILTIN, compressors.GROUP, METHOD)
    missing = [name for name in ("Config", "needs", "compress") if not hasattr(found, name)]
    if not isinstance(found, type) or missing:
        raise UsageError(
            f"{METHOD} '{reference}' is no class with Config, needs, rounds and compress; see compressors.compressor"
        )
    return found


def file_hash(reference: str) -> str | None:
    """Of the user's file that a method is in; None: it is in none."""
    return refs.locate(reference, compressors.BUILTIN, compressors.GROUP, METHOD).file_hash


def costs_of(network: nn.Module, task: Task) -> dict[str, float]:
    """What a network costs: parameters, the share of its weights that are not zero, and MACs of one sample (of a graph,
    all of it)."""
    from compressors.masks.density import density
    from search_spaces.counter import counted
    from training.tasks import sample_inputs

    return {**counted(network, sample_inputs(task)), "density": density(network)}


def recalibrated(network: nn.Module, evaluator: Train) -> None:
    """Give batch normalisations the statistics of the training data, on the evaluator's device."""
    from training.compute import Forward
    from training.fit import has_convolutions
    from training.recalibration import first, recalibrate

    forward = Forward(evaluator.device, evaluator.precision, channels_last=has_convolutions(network))
    batches = first(evaluator.data.batches("train", 0, 0), RECALIBRATION)
    recalibrate(forward.place(network), partial(forward, network), batches)
