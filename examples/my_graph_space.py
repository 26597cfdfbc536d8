"""A search space of your own for data of many graphs, in one file: graph isomorphism networks (Xu et al., ICLR 2019).

nas spaces check examples/my_graph_space.py:space
nas search --space examples/my_graph_space.py:space --data 'random-graphs?target=degrees'
"""

from itertools import pairwise
from typing import ClassVar

from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace
from nas_core.task import (
    GRAPH_CLASSIFICATION,
    GRAPH_REGRESSION,
    INDUCTIVE_NODE_CLASSIFICATION,
    MULTILABEL_NODE_CLASSIFICATION,
)


class MyGraphSpace(SearchSpace):
    name = "my-graph-space"
    tasks = frozenset(
        {GRAPH_CLASSIFICATION, GRAPH_REGRESSION, INDUCTIVE_NODE_CLASSIFICATION, MULTILABEL_NODE_CLASSIFICATION}
    )

    choices = (
        Choice("layers", (1, 2, 3), ordered=True),
        Choice("width", (16, 32, 64), ordered=True),
        Choice("readout", ("mean", "sum")),
    )

    class Size(SizeConfig):
        presets: ClassVar = {"search": {}, "full": {"scale": 2}}
        scale: int = 1

    def build(self, arch, task, size):
        """The untrained network: nodes, edges and the nodes of each graph to outputs per graph, or per node."""
        import torch
        from torch import nn

        class Network(nn.Module):
            def __init__(self, features, width, layers, outputs, readout):
                super().__init__()
                widths = [features, *[width] * layers]
                self.layers = nn.ModuleList(
                    nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Linear(after, after))
                    for before, after in pairwise(widths)
                )
                self.norm = nn.BatchNorm1d(width)
                self.head = nn.Linear(width, outputs)
                self.readout = readout

            def forward(self, x, edge_index, counts):  # [nodes, features], [2, edges], [graphs]
                for layer in self.layers:
                    x = layer(x + torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])).relu()
                if self.readout is None:  # every node is answered for
                    return self.head(self.norm(x))
                # The graph of each node. Sizes are taken by size(), so that an exported network leaves them free.
                graph = (torch.arange(x.size(0), device=x.device)[:, None] >= counts.cumsum(0)).sum(1)
                pooled = x.new_zeros(counts.size(0), x.size(1)).index_add(0, graph, x)
                if self.readout == "mean":
                    pooled = pooled / counts[:, None]
                return self.head(self.norm(pooled))

        # Raises for what is no task on graphs with an answer for each or for their nodes, and for features of edges.
        graphs = task.graphs("graph", "node", edge_features=False)
        values = arch.values
        width, readout = values["width"] * size.scale, values["readout"] if graphs.level == "graph" else None
        return Network(graphs.features, width, values["layers"], task.outputs, readout)


space = MyGraphSpace()
