"""GraphSAGE: the mean of the neighbours."""

from __future__ import annotations

from search_spaces.operators.graph.node.aggregate import Aggregate


class Sage(Aggregate):
    """GraphSAGE (Hamilton et al. 2017): `mean_j (W x_j) + V x_i + b`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, "mean")
