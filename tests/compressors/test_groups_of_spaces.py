"""Groups of architectures drawn from every space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from compressors.groups.groups import Groups
from compressors.groups.trace import trace
from compressors.groups.trial import FORWARD
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.moves import sample
from nas_core.space import HasNamed, HasUnsound, SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, TABULAR_REGRESSION, InputSpec, Task
from search_spaces import BUILTIN, GROUP
from tests.compressors.test_groups import disturbed, proved
from training.networks import build
from training.tasks import sample_inputs

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 8, 8), outputs=5)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=4, nodes=30, edges=80)
FIELDS = InputSpec(name="x", shape=(9,), categories=(1, 4, 1, 3))
TABLE = Task(kind=TABULAR_REGRESSION, inputs=(FIELDS,), outputs=1, metric="rmse")

SMALL: Mapping[str, tuple[Task, Mapping[str, Any]]] = {
    "activation": (IMAGES, {"width": 4, "stages": 2}),
    "ae-cnn": (IMAGES, {"width_scale": 0.05, "depth_scale": 0.3}),
    "argnp": (GRAPH, {"node": 8, "relation": 6, "node_output": 8, "dropout": 0.0}),
    "auto-gnn": (GRAPH, {"dropout": 0.0}),
    "darts": (IMAGES, {"channels": 3, "layers": 3}),
    "evonorm": (IMAGES, {"width": 4, "stages": 2}),
    "gnas": (GRAPH, {"hidden": 8, "dropout": 0.0}),
    "graphgym": (GRAPH, {"hidden": 8}),
    "graphnas": (GRAPH, {"dropout": 0.0}),
    "graphnas-micro": (GRAPH, {}),
    "mlp": (TABLE, {"width_scale": 0.1}),
    "moe": (TABLE, {"width": 8}),
    "nasbench201": (IMAGES, {"channels": 4, "cells": 1}),
    "nasbench_graph": (GRAPH, {"hidden": 8, "dropout": 0.0}),
    "nasnet": (IMAGES, {"cells": 1, "filters": 48, "stem_filters": 4}),
    "regnet": (IMAGES, {"width_scale": 0.1, "stem_width": 7}),
    "stages": (IMAGES, {"width_scale": 0.0625}),
}
"""By space: a task, and the size that its networks are built in."""

DRAWN = 20
SHALLOW: Mapping[str, tuple[int, int, int]] = {
    "activation": (3, 6, 8),
    "ae-cnn": (6, 9, 14),
    "darts": (12, 13, 19),
    "evonorm": (0, 2, 5),
    "mlp": (0, 3, 14),
    "nasbench201": (2, 3, 13),
    "nasbench_graph": (4, 12, 13),
    "nasnet": (3, 5, 14),
    "regnet": (6, 11, 14),
    "stages": (3, 12, 16),
}
"""Of the drawn architectures the three with the fewest layers that have all kinds of layers that any of them has: what
an architecture costs is nearly all tracing, operator by operator."""


NOTHING = {("moe", 12)}
"""Drawn networks of which nothing can be removed: SMEAR in every block, which merges all experts to one."""


def shallow(space: str) -> tuple[int, ...]:
    """Those of the gate: of a space that is not listed the first three."""
    return SHALLOW.get(space, (0, 1, 2))


def drawn(space: SearchSpace, number: int) -> Architecture:
    """A random architecture; of a space most of whose architectures are worth no network, a known one."""
    if isinstance(space, HasUnsound) and isinstance(space, HasNamed):
        return list(space.named.values())[number % len(space.named)]
    return sample(space, np.random.default_rng(number))


def traced(space: str, number: int, text: str = "") -> tuple[nn.Module, tuple[Tensor, ...], Groups]:
    """The network of one architecture, one that is drawn or that of a text, its inputs and its groups."""
    task, size = SMALL[space]
    loaded = refs.load(BUILTIN[space], BUILTIN, GROUP, "search space").object
    arch = loaded.from_text(text) if text else drawn(loaded, number)
    network = disturbed(build(loaded, arch, task, loaded.Size(**size), number))
    inputs = sample_inputs(task, 2)
    groups = trace(network, inputs)
    assert groups.groups
    assert not [fixed for fixed in groups.fixed if fixed.operator == FORWARD]
    return network, inputs, groups


def shown(space: str, number: int, text: str = "") -> None:
    """Half of all exact units of one architecture removed."""
    network, inputs, groups = traced(space, number, text)
    proved(network, groups, inputs)


@pytest.mark.parametrize(("space", "number"), [(space, number) for space in SMALL for number in shallow(space)])
def test_architectures(space: str, number: int) -> None:
    shown(space, number)


def test_cells_whose_nodes_read_nothing() -> None:
    """Zeros in the place of a node, of its width."""
    shown("nasbench201", 0, "|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_3x3~2|")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "number"),
    [
        (space, number)
        for space in SMALL
        for number in range(DRAWN)
        if number not in shallow(space) and (space, number) not in NOTHING
    ],
)
def test_more_architectures(space: str, number: int) -> None:
    shown(space, number)


@pytest.mark.parametrize(("space", "number"), sorted(NOTHING))
def test_of_some_networks_nothing_can_be_removed(space: str, number: int) -> None:
    task, size = SMALL[space]
    loaded = refs.load(BUILTIN[space], BUILTIN, GROUP, "search space").object
    groups = trace(build(loaded, drawn(loaded, number), task, loaded.Size(**size), number), sample_inputs(task, 2))
    assert not groups.groups
    assert all(fixed.operator and fixed.reason for fixed in groups.fixed)


def test_every_space_is_drawn_from() -> None:
    assert set(SMALL) == set(BUILTIN)
