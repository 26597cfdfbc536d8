"""What a rewiring answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from search_spaces.layers.graph_batch import GraphBatch


class Rewired(NamedTuple):
    """Another graph, features of its nodes, and the places of the nodes there were `[n]`: `x[places]` are theirs."""

    x: Tensor
    graph: GraphBatch
    places: Tensor
