"""A space of small networks for any kind of task: what a kind is tried with, from training to export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace
from nas_core.task import COUNTS, PAIRS, Task

if TYPE_CHECKING:
    from torch import nn


class ToySpace(SearchSpace):
    """Two layers of one of two widths on all numbers of a sample; after a convolution where the first input is a map,
    on a graph after a sum over neighbours, and of a sequence at each position, on it and the one before. `kinds` are
    the names of the kinds of task that it is for."""

    name = "toy"
    choices = (Choice("width", (8, 32)),)

    def __init__(self, kinds: Sequence[str]) -> None:
        self.tasks = frozenset(kinds)

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        from training.testing import toy_networks

        width = int(arch.values["width"])
        first = task.inputs[0]
        if task.positions is not None:
            return toy_networks.OfTokens(task.tokens()[1], width, task.outputs)
        if len(first.shape) == 3 and len(task.inputs) == 2:
            return toy_networks.OfAskedMaps(first.shape[0], width, task.outputs, len(task.heads))
        if len(first.shape) == 3:
            return toy_networks.OfMaps(first.shape[0], width, task.outputs)
        if task.inputs[-1].name == PAIRS:
            graphs = task.graphs()
            return toy_networks.OfPairs(graphs.features, graphs.edge_features, width, task.outputs)
        if task.inputs[-1].name == COUNTS:
            graphs, readout = task.graphs(), task.level == "graph"
            return toy_networks.OfManyGraphs(
                graphs.features, graphs.edge_features, width, task.outputs, readout=readout
            )
        if len(task.inputs) == 2:
            return toy_networks.OfGraph(first.shape[0], width, task.outputs)
        return toy_networks.OfRows(math.prod(first.shape), width, task.outputs)
