"""The layer of an architecture of `evonorm`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.evonorm.fused import NORMALISED, RELU, SILU, Step, steps
from search_spaces.evonorm.graph import INITIAL, V0, V1, ZERO, Graph, X
from search_spaces.evonorm.primitives import AGGREGATIONS, BATCH, EPS, Library, apply, groups_of, of_batch, rooted
from search_spaces.layers.affine import Affine, ConditionalBatchNorm2d
from search_spaces.layers.batch_moment import MEAN, SQUARE, VARIANCE, BatchMoment, mean, variance
from search_spaces.layers.shapes import check

TORCH = Library(torch, mean, variance, torch.sigmoid)
MOMENTS = {"mean": MEAN, "rms": SQUARE, "std": VARIANCE, "var": VARIANCE}


class EvoNormLayer(nn.Module):
    """A normalisation with its activation: values of the graph, then a scale and a shift per channel.

    `[n, channels, *positions]` to the same shape; no positions are one. It is computed in the type of its parameters,
    also under autocast, which casts no operation of elements down; the output has the type of the input. v0 and v1,
    which start at 0 and 1, are there where the graph reads them. Raises ValueError for another shape, and in training
    mode for moments of the batch of one value per channel.
    """

    def __init__(self, graph: Graph, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.graph, self.eps = graph.live(), eps
        self.steps = steps(self.graph)
        grouped = any(node.op in AGGREGATIONS and AGGREGATIONS[node.op][1] == "group" for node in self.graph.nodes)
        self.size = channels // groups_of(channels) if grouped else 1  # channels of a group
        used = self.graph.used
        self.v0 = nn.Parameter(torch.zeros(channels)) if V0 in used else None
        self.v1 = nn.Parameter(torch.ones(channels)) if V1 in used else None
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.moments = nn.ModuleDict()
        for step in self.steps:
            if NORMALISED.get(step.op) == BATCH:
                self.moments[str(step.place - len(INITIAL))] = ConditionalBatchNorm2d(channels, eps)
            elif of_batch(step.op):
                moment = MOMENTS[AGGREGATIONS[step.op][0]]
                self.moments[str(step.place - len(INITIAL))] = BatchMoment(channels, moment)
        self.affine = Affine(overwrites=self.steps[-1].op in NORMALISED)
        self.pair = len(self.steps) == 1 and self.steps[0].op in NORMALISED and self.steps[0].inputs[0] == X
        self.register_forward_pre_hook(check)

    @property
    def channels(self) -> int:
        return len(self.weight)

    def extra_repr(self) -> str:
        return f"{self.channels}, channels of a group={self.size}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.weight.dtype)
        if self.pair and x.dim() == 4:  # torch's functions take it as it is, and a view costs as much as a small map
            return self.affine(self._normalised(self.steps[0], wide), self.weight, self.bias).to(x.dtype)
        parts = wide.reshape(x.shape[0], x.shape[1] // self.size, self.size, -1)
        return self.affine(self._computed(parts), self.weight, self.bias).reshape(x.shape).to(x.dtype)

    def _computed(self, x: Tensor) -> Tensor:
        """Of `[n, g, k, p]`, as `[n, channels, p, 1]`."""
        values = {X: x, ZERO: x.new_zeros(1, 1, 1, 1)}
        if self.v0 is not None:
            values[V0] = self._per_channel(self.v0)
        if self.v1 is not None:
            values[V1] = self._per_channel(self.v1)
        *earlier, last = self.steps
        for step in earlier:
            y = self._step(step, values, x)
            values[step.place] = y.reshape(x.shape) if step.op in NORMALISED else y
        y = self._step(last, values, x)
        return y if last.op in NORMALISED else _maps(y.expand(x.shape))

    def _step(self, step: Step, values: Mapping[int, Tensor], x: Tensor) -> Tensor:
        """The value; of what is normalised as `[n, channels, p, 1]`."""
        value, *others = (values[place] for place in step.inputs)
        if step.op in NORMALISED:
            return self._normalised(step, _maps(value if step.inputs[0] == X else value.expand(x.shape)))
        if step.op == RELU:
            return functional.relu(value)
        if step.op == SILU:
            return functional.silu(value)
        if of_batch(step.op):
            moment = self.moments[str(step.place - len(INITIAL))](value, x)
            return rooted(TORCH, AGGREGATIONS[step.op][0], moment, self.eps)
        return apply(TORCH, step.op, value, others[0] if others else None, self.eps)

    def _normalised(self, step: Step, x: Tensor) -> Tensor:
        """Of `[n, channels, h, w]`."""
        scale, shift = ([{V0: self.v0, V1: self.v1}[place] for place in step.inputs[1:]] + [None, None])[:2]
        over = NORMALISED[step.op]
        if over == BATCH:
            y = self.moments[str(step.place - len(INITIAL))](x, scale, shift)
        else:
            groups = {"hw": x.shape[1], "group": x.shape[1] // self.size, "chw": 1}[over]
            y = torch.group_norm(x, groups, scale, shift, self.eps)  # that of `functional` refuses one row
        if step.activation == RELU:
            return functional.relu(y, inplace=True)  # no gradient needs what it was
        if step.activation == SILU:
            return functional.silu(y, inplace=not torch.is_grad_enabled())
        return y

    def _per_channel(self, value: Tensor) -> Tensor:
        return value.reshape(1, -1, self.size, 1)


def _maps(x: Tensor) -> Tensor:
    """`[n, g, k, p]` as maps `[n, channels, p, 1]` for torch's functions; where channels lie last, without a copy."""
    return x.reshape(x.shape[0], -1, x.shape[3], 1)
