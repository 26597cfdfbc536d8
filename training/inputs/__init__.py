"""What a deployed network needs to know of its inputs, as plain data: a class per kind of task (`training.tasks`).

It is a property of a data source, is kept with a retraining, and travels in every exported file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.config import validate
from nas_core.errors import unknown
from training.inputs.base import Inputs
from training.inputs.graphs import GraphInputs
from training.inputs.images import ImageInputs
from training.inputs.many_graphs import ManyGraphInputs, MultilabelInputs
from training.inputs.multi_task import MultiTaskInputs
from training.inputs.node_numbers import NodeNumberInputs
from training.inputs.pairs import PairInputs
from training.inputs.questions import QuestionInputs
from training.inputs.tables import TableInputs
from training.inputs.texts import TextInputs

__all__ = [
    "GraphInputs",
    "ImageInputs",
    "Inputs",
    "ManyGraphInputs",
    "MultiTaskInputs",
    "MultilabelInputs",
    "NodeNumberInputs",
    "PairInputs",
    "QuestionInputs",
    "TableInputs",
    "TextInputs",
    "inputs_from",
]


def inputs_from(stored: Mapping[str, Any]) -> Inputs:
    """What `model_dump(mode="json")` of one of these gave. Raises UsageError for anything else."""
    from training import tasks

    kind = str(stored.get("kind"))
    if kind not in tasks.names():
        raise unknown("kind of inputs", kind, tasks.names())
    return validate(tasks.find(kind).Inputs, stored, "inputs")
