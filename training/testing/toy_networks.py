"""The networks of `toy_space`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class OfRows(nn.Module):
    """Samples [b, ...] of so many features in all to [b, outputs]."""

    def __init__(self, features: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x.flatten(1))).relu())


class OfMaps(nn.Module):
    """Maps [b, c, h, w] to [b, outputs]."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu().mean((2, 3)))


class OfAskedMaps(nn.Module):
    """Maps [b, c, h, w] and the number of the task of each [b] to [b, outputs]."""

    def __init__(self, channels: int, width: int, outputs: int, tasks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.asked = nn.Embedding(tasks, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        return self.last(self.norm(self.first(image)).relu().mean((2, 3)) + self.asked(task))


class OfGraph(nn.Module):
    """Features [nodes, f] and edges [2, e] to [nodes, outputs]."""

    def __init__(self, features: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden.index_add(0, edge_index[1], hidden[edge_index[0]])
        return self.last(self.norm(hidden).relu())


class OfManyGraphs(nn.Module):
    """Features [nodes, f], edges [2, e], features of edges [e, k] where there are such (`values`), and the nodes of
    each graph [graphs] to [graphs, outputs], or, without `readout`, to [nodes, outputs]."""

    def __init__(self, features: int, values: int | None, width: int, outputs: int, *, readout: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.of_edges = None if values is None else nn.Linear(values, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, outputs)
        self.readout = readout

    def forward(self, x: Tensor, edge_index: Tensor, *others: Tensor) -> Tensor:
        hidden = self.first(x)
        messages = hidden[edge_index[0]]
        if self.of_edges is not None:
            messages = messages + self.of_edges(others[0])
        hidden = self.norm(hidden.index_add(0, edge_index[1], messages)).relu()
        if not self.readout:
            return self.last(hidden)
        counts = others[-1]
        # The graph of each node: no exporter takes another form of it.
        graph_of = (torch.arange(x.size(0), device=x.device)[:, None] >= counts.cumsum(0)).sum(1)
        pooled = hidden.new_zeros(counts.size(0), hidden.size(1)).index_add(0, graph_of, hidden)
        return self.last(pooled / counts[:, None])


class OfPairs(nn.Module):
    """Features [nodes, f], edges [2, e], features of edges [e, k] where there are such (`values`), and pairs of nodes
    [2, p] to [p, outputs], of the product of what both nodes have come to."""

    def __init__(self, features: int, values: int | None, width: int, outputs: int) -> None:
        super().__init__()
        self.nodes = OfManyGraphs(features, values, width, width, readout=False)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor, edge_index: Tensor, *others: Tensor) -> Tensor:
        hidden = self.nodes(x, edge_index, *others[:-1])
        pairs = others[-1]
        return self.last(hidden[pairs[0]] * hidden[pairs[1]])


class OfTokens(nn.Module):
    """Integers [b, t] below `vocabulary` to [b, t, outputs], from each and the one before it."""

    def __init__(self, vocabulary: int, width: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.first = nn.Linear(2 * width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        now = self.embedding(tokens)
        before = functional.pad(now, (0, 0, 1, 0))[:, :-1]
        return self.last(self.first(torch.cat([now, before], 2)).relu())
