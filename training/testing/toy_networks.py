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
