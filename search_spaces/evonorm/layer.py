"""The layer of an architecture of `evonorm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.evonorm.graph import V0, V1, ZERO, Graph, X, evaluate
from search_spaces.evonorm.primitives import AGGREGATIONS, EPS, Library, apply, groups_of, of_batch, rooted
from search_spaces.layers.batch_moment import MEAN, SQUARE, VARIANCE, BatchMoment

TORCH = Library(torch, lambda x, axes: x.mean(axes, keepdim=True), torch.sigmoid)
MOMENTS = {"mean": MEAN, "rms": SQUARE, "std": VARIANCE, "var": VARIANCE}


class EvoNormLayer(nn.Module):
    """A normalisation with its activation: values of the graph, then a scale and a shift per channel.

    `[n, c, h, w]`, `[n, c]`, or with `channels_last` `[n, t, c]`, to the same shape; a channel of a sample has h w, one
    or t positions. It is computed in float32 (or float64), also under autocast, which casts no operation of elements
    down; the output has the type of the input. v0 and v1, which start at 0 and 1, are there where the graph reads them.
    """

    def __init__(self, graph: Graph, channels: int, eps: float = EPS, channels_last: bool = False) -> None:
        super().__init__()
        self.graph, self.eps, self.channels_last = graph.live(), eps, channels_last
        grouped = any(node.op in AGGREGATIONS and AGGREGATIONS[node.op][1] == "group" for node in self.graph.nodes)
        self.size = channels // groups_of(channels) if grouped else 1  # channels of a group
        used = self.graph.used
        self.v0 = nn.Parameter(torch.zeros(channels)) if V0 in used else None
        self.v1 = nn.Parameter(torch.ones(channels)) if V1 in used else None
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        ops = {str(number): node.op for number, node in enumerate(self.graph.nodes) if of_batch(node.op)}
        self.moments = nn.ModuleDict({n: BatchMoment(channels, MOMENTS[AGGREGATIONS[op][0]]) for n, op in ops.items()})

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, channels of a group={self.size}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        rows = wide.transpose(1, 2) if self.channels_last else wide
        parts = rows.reshape(x.shape[0], rows.shape[1] // self.size, self.size, -1)
        y = self._computed(parts).reshape(rows.shape)
        return (y.transpose(1, 2) if self.channels_last else y).to(x.dtype)

    def _computed(self, x: Tensor) -> Tensor:
        """Of `[n, g, k, p]`, in the same shape."""

        def node(number: int, op: str, value: Tensor, other: Any) -> Tensor:
            if of_batch(op):
                return rooted(TORCH, AGGREGATIONS[op][0], self.moments[str(number)](value, x), self.eps)
            return apply(TORCH, op, value, other, self.eps)

        initial = {X: x, ZERO: x.new_zeros(1, 1, 1, 1)}
        if self.v0 is not None:
            initial[V0] = self._per_channel(self.v0)
        if self.v1 is not None:
            initial[V1] = self._per_channel(self.v1)
        y = evaluate(self.graph, initial, node)
        return (y * self._per_channel(self.weight) + self._per_channel(self.bias)).expand(x.shape)

    def _per_channel(self, value: Tensor) -> Tensor:
        return value.reshape(1, -1, self.size, 1)
