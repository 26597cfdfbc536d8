"""A node operator of one's own: the largest difference to a neighbour, beside the node itself."""

import torch
from torch import nn
from torch_geometric.nn import MessagePassing


class Contrast(MessagePassing):
    """`W [x_i, max_j |x_i - x_j|] + b`, over the neighbours j that are up to `hops` steps away."""

    def __init__(self, width, hidden, hops=1):
        super().__init__(aggr="max")
        self.linear = nn.Linear(2 * width, hidden)
        self.hops = hops

    def forward(self, x, edge_index):  # [nodes, width], [2, edges]: source and target
        far = torch.zeros_like(x)
        for _ in range(self.hops):
            far = torch.maximum(far, self.propagate(edge_index, x=x, far=far))
        return self.linear(torch.cat([x, far], 1))  # [nodes, hidden]

    def message(self, x_i, x_j, far_j):
        return torch.maximum((x_i - x_j).abs(), far_j)
