"""`karate`: Zachary's karate club with four communities, as PyTorch Geometric carries it (Kipf and Welling 2017)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.task import EDGE_CLASSIFICATION, LINK_PREDICTION, NODE_CLASSIFICATION, NODE_REGRESSION
from training.data.files import nothing
from training.data.node_numbers import NodeNumberSource, node_number_source
from training.data.pair_source import PairSource, edge_source, link_source
from training.data.reference import options
from training.data.source import GraphSource, graph_source
from training.data.split import Split


class Options(Config):
    """What may follow, as in `karate?task=link-prediction`."""

    task: Literal["node-classification", "node-regression", "edge-classification", "link-prediction"] = Field(
        default="node-classification",
        description="what is learned: communities, degrees, edges within a community, or links",
    )


def load(argument: str, split: Split) -> GraphSource | NodeNumberSource | PairSource:
    """34 nodes with one-hot features, 156 directed edges, 4 classes.

    Of classes the training part is the public one of one node per class; the other 30 nodes are halved by class into
    validation and test, because fractions of so few nodes would leave nothing to select by. Edges have the classes
    "between" and "within" communities; the numbers of nodes are their degrees.
    """
    reference = f"karate{argument}"
    where, chosen = options("", reference, Options)
    nothing("karate", where.removeprefix("karate").removeprefix(":"))
    from torch_geometric.datasets import KarateClub

    graph = KarateClub()[0]
    features, labels, edge_index = graph.x.numpy(), graph.y.numpy(), graph.edge_index.numpy()
    if chosen.task == LINK_PREDICTION:
        return link_source(reference, features, edge_index, split)
    if chosen.task == EDGE_CLASSIFICATION:
        within = (labels[edge_index[0]] == labels[edge_index[1]]).astype(np.int64)
        return edge_source(reference, features, within, edge_index, split, classes=("between", "within"))
    if chosen.task == NODE_REGRESSION:
        degrees = np.bincount(edge_index[1], minlength=len(features))
        return node_number_source(reference, features, degrees, edge_index, split)
    assert chosen.task == NODE_CLASSIFICATION
    return graph_source(
        *(reference, features, labels, edge_index, split), train=np.flatnonzero(graph.train_mask.numpy())
    )
