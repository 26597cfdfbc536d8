"""PNA: several aggregators, scaled by degree."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor
from torch_geometric.nn import PNAConv

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.given import graph_and_edges

AGGREGATORS = ("mean", "min", "max", "std")
SCALERS = ("identity", "amplification", "attenuation")


class Principal(PNAConv):
    """Principal neighbourhood aggregation (Corso et al. 2020, eq. 8): mean, smallest, largest and standard deviation of
    `W [x_i, x_j(, e_ij)] + b`, each as it is and scaled by `log(d + 1) / delta` and its inverse, with the node itself
    through two linear maps. `delta` is `log(degree + 1)` of the mean degree, which a space knows, where the paper has
    the mean of logarithms over the training nodes."""

    takes_graph = True
    takes_edges = True
    takes_degree = True

    def __init__(self, width: int, hidden: int, degree: float = 4.0, edge_dim: int | None = None) -> None:
        # A histogram of training nodes is asked for; what it comes to is set below.
        super().__init__(width, hidden, list(AGGREGATORS), list(SCALERS), torch.ones(2), edge_dim)
        self.degree = degree
        self.aggr_module.avg_deg_log.fill_(math.log(degree + 1))

    def forward(self, x: Tensor, edges: Tensor | GraphBatch, e: Tensor | None = None) -> Tensor:
        graph, given = graph_and_edges(x, edges, e)
        return super().forward(x, graph.edge_index, None if self.edge_dim is None else given)

    def macs(self, nodes: int, edges: int) -> int:
        maps = (self.pre_nns[0][0], edges), (self.post_nns[0][0], nodes), (self.lin, nodes)
        given = 0 if self.edge_dim is None else edges * self.edge_encoder.weight.numel()
        return sum(layer.weight.numel() * rows for layer, rows in maps) + edges * self.in_channels + given

    def signature(self) -> Hashable:
        return "pna", self.in_channels, self.out_channels, self.degree, self.edge_dim
