"""The edges of a graph, and what several layers need of them: computed once per pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops

from search_spaces.layers.features import Shared


class Links(Shared):
    """The edges `[2, e]` among `nodes` in one pass, and what several layers need of them: made at the first call."""

    __slots__ = ("_made", "edges", "nodes")

    def __init__(self, edges: Tensor, nodes: int) -> None:
        self.edges, self.nodes = edges, nodes
        self._made: dict[Hashable, Any] = {}

    @staticmethod
    def of(edges: Tensor | Links, x: Tensor) -> Links:
        """The edges among the nodes that have the features `x`."""
        return edges if isinstance(edges, Links) else Links(edges, x.size(0))

    @property
    def tensor(self) -> Tensor:
        return self.edges

    @property
    def unlooped(self) -> Tensor:
        """The edges without self-loops."""
        return self._once("unlooped", lambda: remove_self_loops(self.edges)[0])

    @property
    def looped(self) -> Tensor:
        """The edges with one self-loop at every node, last."""
        return self._once("looped", lambda: add_self_loops(self.unlooped, num_nodes=self.nodes)[0])

    def normalised(
        self, dtype: torch.dtype, degrees: str = "source_to_target", loops: str = "kept"
    ) -> tuple[Tensor, Tensor]:
        """Edges and the weight `D^-1/2 A D^-1/2` of each; self-loops are "kept", "added" where missing, or "removed".

        `degrees` count the edges into ("source_to_target") or out of ("target_to_source") a node, which differ on
        directed graphs only.
        """
        edges = self.unlooped if loops == "removed" else self.edges
        return self._once(
            (dtype, degrees, loops),
            lambda: gcn_norm(edges, None, self.nodes, add_self_loops=loops == "added", flow=degrees, dtype=dtype),
        )

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
