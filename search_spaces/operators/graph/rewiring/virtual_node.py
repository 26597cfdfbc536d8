"""Virtual nodes."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.rewiring.rewired import Rewired


class VirtualNode(nn.Module):
    """One more node per graph, its last one, joined to all nodes of the graph in both directions (Gilmer et al. 2017,
    section 5.3). It begins with zeros, and so do the features of its edges."""

    def forward(self, x: Tensor, graph: GraphBatch) -> Rewired:
        number = torch.arange(graph.graphs, device=x.device)
        places = torch.arange(graph.nodes, device=x.device) + graph.batch
        counts = graph.counts
        ends = number + graph.nodes if counts is None else number + counts.cumsum(0)
        more = x.new_zeros(graph.nodes + graph.graphs, x.size(1)).index_copy(0, places, x)
        hubs = ends[graph.batch]
        edges = torch.cat([places[graph.edge_index], torch.stack([places, hubs]), torch.stack([hubs, places])], 1)
        attributes = graph.edge_attr
        if attributes is not None:
            attributes = torch.cat([attributes, attributes.new_zeros(2 * graph.nodes, attributes.size(1))])
        grown = None if counts is None else counts + 1
        return Rewired(more, GraphBatch(edges, graph.nodes + graph.graphs, attributes, grown), places)

    def macs(self, nodes: int, edges: int) -> int:
        return 0

    def signature(self) -> Hashable:
        return "virtual-node"
