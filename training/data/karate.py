"""`karate`: Zachary's karate club with four communities, as PyTorch Geometric carries it (Kipf and Welling 2017)."""

from __future__ import annotations

import numpy as np

from training.data.files import nothing
from training.data.source import GraphSource, graph_source
from training.data.split import Split


def load(argument: str, split: Split) -> GraphSource:
    """34 nodes with one-hot features, 156 directed edges, 4 classes.

    The training part is the public one of one node per class; the other 30 nodes are halved by class into
    validation and test, because fractions of so few nodes would leave nothing to select by.
    """
    nothing("karate", argument)
    from torch_geometric.datasets import KarateClub

    graph = KarateClub()[0]
    return graph_source(
        "karate",
        graph.x.numpy(),
        graph.y.numpy(),
        graph.edge_index.numpy(),
        split,
        train=np.flatnonzero(graph.train_mask.numpy()),
    )
