"""A plain multilayer perceptron for rows of a table, with a slot after every hidden layer.

A row has one value per channel, so that moments over positions are the value itself, and those over a group of one
channel too: the widths of the presets, 72 and 264, have 8 groups of 9 and of 33 channels.
"""

from __future__ import annotations

from torch import nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import Slot


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, width of a row)` to `(n, outputs)`: `dims.depth` hidden layers."""
    layers: list[nn.Module] = []
    inputs = sum(task.table())
    for _ in range(dims.depth):
        layers += [nn.Linear(inputs, dims.width), slot(dims.width)]
        inputs = dims.width
    return nn.Sequential(*layers, nn.Linear(inputs, task.outputs))
