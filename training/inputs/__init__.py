"""What a deployed network needs to know of its inputs, as plain data: one file per kind of task.

It is a property of a data source, is kept with a retraining, and travels in every exported file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.config import validate
from nas_core.errors import unknown
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION
from training.inputs.graphs import GraphInputs
from training.inputs.images import ImageInputs

__all__ = ["GraphInputs", "ImageInputs", "Inputs", "inputs_from"]

Inputs = ImageInputs | GraphInputs

_KINDS: Mapping[str, type[Inputs]] = {IMAGE_CLASSIFICATION: ImageInputs, NODE_CLASSIFICATION: GraphInputs}


def inputs_from(stored: Mapping[str, Any]) -> Inputs:
    """What `model_dump(mode="json")` of one of these gave. Raises UsageError for anything else."""
    kind = str(stored.get("kind"))
    if kind not in _KINDS:
        raise unknown("kind of inputs", kind, _KINDS)
    return validate(_KINDS[kind], stored, "inputs")
