"""A graph convolutional network with a slot after every hidden layer.

Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR 2017, equation 9: two layers,
one of them hidden, dropout of .5 before each. A graph is a sample and its nodes are the positions: moments of a channel
are over the nodes of the graph, those of a sample and of a group over these channels at all nodes, those of the batch
over all nodes there are. With one graph, the first and the last are the same while training.
"""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import ChannelsLast, Slot
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.node.gcn import Convolution

DROPPED = 0.5


class GraphNetwork(nn.Module):
    """`(nodes, features), (2, edges)` to `(nodes, outputs)`: graph convolutions, a slot after each but the last."""

    def __init__(self, features: int, outputs: int, width: int, hidden: int, slot: Slot) -> None:
        super().__init__()
        widths = [features, *[width] * hidden, outputs]
        self.convolutions = nn.ModuleList(map(Convolution, widths[:-1], widths[1:]))
        self.slots = nn.ModuleList(ChannelsLast(slot(width), graph=True) for _ in range(hidden))
        self.drop_features = FeatureDropout(DROPPED)
        self.drop = Dropout(DROPPED)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edges = GraphBatch.of(edge_index, x)
        x = self.drop_features(x, edges)
        for convolution, slot in zip(self.convolutions, self.slots, strict=False):
            x = self.drop(slot(convolution(x, edges)))
        return self.convolutions[-1](x, edges)


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(nodes, features), (2, edges)` to `(nodes, outputs)`: `dims.depth` hidden layers of `dims.width` channels."""
    return GraphNetwork(task.graph(), task.outputs, dims.width, dims.depth, slot)
