"""A trained network that another one learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.task import Task
from training.fits import check_fits

if TYPE_CHECKING:
    from torch import nn

    from training.inputs import Inputs


@dataclass(frozen=True)
class Teacher:
    """A network with its weights. `reference` is what it was called, `sha256` that of the file of its weights, `load`
    builds it on the CPU, in evaluation mode; `inputs` are what it needs to know of its inputs, where that is known."""

    reference: str
    sha256: str
    task: Task
    inputs: Inputs | None
    load: Callable[[], nn.Module]

    def check(self, task: Task, inputs: Inputs | None) -> None:
        """Raise UsageError where it does not answer the question of a `task` whose data say this of the inputs."""
        check_fits(f"teacher '{self.reference}'", self.task, self.inputs, task, inputs)


def exported(description: Path, reference: str) -> Teacher:
    """The network of an exported `.json` with the weights beside it.

    Raises NotFoundError where one of the two is missing, UsageError for files that are damaged or of other kinds.
    """
    from training.export.rebuild import load_network
    from training.infer.model import weights_beside
    from training.inputs import inputs_from

    if description.suffix != ".json":
        raise UsageError(f"--teacher '{reference}': a teacher is an export's .json, or STUDY:NUMBER/train-NUMBER")
    weights = weights_beside(description)
    load_network(description, weights)
    said = json.loads(description.read_text(encoding="utf-8"))
    return Teacher(
        reference,
        hashlib.sha256(weights.read_bytes()).hexdigest(),
        validate(Task, said["task"], "task"),
        inputs_from(said["inputs"]) if "inputs" in said else None,
        partial(load_network, description, weights),
    )
