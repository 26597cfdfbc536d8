"""k-GNN: the sum of the neighbours."""

from __future__ import annotations

from search_spaces.operators.graph.node.aggregate import Aggregate


class KGNN(Aggregate):
    """The k-GNN with k = 1 (Morris et al. 2019): `sum_j (W x_j) + V x_i + b`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, "sum")
