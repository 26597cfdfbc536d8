"""Kinds of task: one file each, and one line here. Nothing else in the code knows them by name."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from nas_core import refs
from nas_core.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor

    from nas_core.task import Task
    from training.tasks.kind import Kind

GROUP = "nas.tasks"

BUILTIN = {
    "image-classification": "training.tasks.image_classification:KIND",
    "multi-task-classification": "training.tasks.multi_task:KIND",
    "node-classification": "training.tasks.node_classification:KIND",
    "node-regression": "training.tasks.node_regression:KIND",
    "link-prediction": "training.tasks.link_prediction:KIND",
    "edge-classification": "training.tasks.edge_classification:KIND",
    "graph-classification": "training.tasks.graph_classification:KIND",
    "graph-regression": "training.tasks.graph_regression:KIND",
    "inductive-node-classification": "training.tasks.inductive_nodes:KIND",
    "multilabel-node-classification": "training.tasks.multilabel_nodes:KIND",
    "tabular-classification": "training.tasks.tabular_classification:KIND",
    "tabular-regression": "training.tasks.tabular_regression:KIND",
    "language-modelling": "training.tasks.language_modelling:KIND",
    "question-answering": "training.tasks.question_answering:KIND",
}


@cache
def names() -> tuple[str, ...]:
    """All kinds: built-in, then those of installed packages."""
    return tuple(refs.names(BUILTIN, GROUP))


def find(name: str) -> Kind:
    """The kind of a name. Raises UsageError for an unknown one."""
    if name not in BUILTIN and name not in names():
        raise unknown("kind of task", name, names())
    found: Kind = refs.find(name, BUILTIN, GROUP, "kind of task")
    return found


def kind_of(task: Task) -> Kind:
    """Raises UsageError for a task of an unknown kind."""
    return find(task.kind)


def all_kinds() -> tuple[Kind, ...]:
    """Every kind, in the order of `names`."""
    return tuple(map(find, names()))


def example_tasks() -> dict[Task, tuple[Tensor, ...]]:
    """Small tasks of every kind, whose shapes and outputs differ, with inputs: what a space is checked on."""
    return {task: sample_inputs(task, 4) for kind in all_kinds() for task in kind.examples()}


def sample_inputs(task: Task, batch: int = 1) -> tuple[Tensor, ...]:
    """Random inputs of a network for `task`, always the same: the one place where such are made. Raises UsageError for
    an unknown kind of task, and for a graph of unknown size."""
    import torch

    return kind_of(task).sample_inputs(task, batch, torch.Generator().manual_seed(0))
