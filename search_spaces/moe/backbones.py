"""Networks in which feed-forward layers are dense or of experts: backbones, one file each, listed here.

The file of a backbone has `network(task, width, depth, layer)`, the untrained network for a task with `depth` blocks of
`width` features. Wherever a feed-forward layer goes it calls `layer(block, place, features)`, which maps `[n, t,
features]` to the same shape; `block` counts from 1, `place` is one of the backbone's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_core.task import (
    IMAGE_CLASSIFICATION,
    LANGUAGE_MODELLING,
    MULTI_TASK,
    QUESTION_ANSWERING,
    TABULAR_CLASSIFICATION,
    TABULAR_REGRESSION,
    Task,
)
from search_spaces.operators.routers.facts import CONDITION, LATER, SEVERAL

if TYPE_CHECKING:
    from torch import nn

FFN, TOKENS, CHANNELS = "ffn", "tokens", "channels"


@dataclass(frozen=True)
class Backbone:
    """A listed backbone: the name of its file, the kinds of task that it learns, the feed-forward layers of a block,
    and what it gives a router (`search_spaces.operators.routers.facts.NEEDS`)."""

    name: str
    kinds: frozenset[str]
    places: tuple[str, ...]
    gives: frozenset[str]

    def network(self, task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
        """The untrained network. Raises UsageError for a task that it does not learn."""
        made: nn.Module = importlib.import_module(f"search_spaces.moe.{self.name}").network(task, width, depth, layer)
        return made


_LISTED = (
    Backbone("table", frozenset({TABULAR_CLASSIFICATION, TABULAR_REGRESSION}), (FFN,), frozenset({LATER})),
    Backbone("text", frozenset({LANGUAGE_MODELLING, QUESTION_ANSWERING}), (FFN,), frozenset({SEVERAL})),
    Backbone("patches", frozenset({IMAGE_CLASSIFICATION}), (TOKENS, CHANNELS), frozenset({LATER, SEVERAL})),
    Backbone("tasks", frozenset({MULTI_TASK}), (TOKENS, CHANNELS), frozenset({CONDITION, LATER, SEVERAL})),
)
BACKBONES: Mapping[str, Backbone] = {backbone.name: backbone for backbone in _LISTED}
