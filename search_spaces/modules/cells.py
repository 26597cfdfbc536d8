"""Torch layers of NAS-Bench-201 (Dong and Yang, ICLR 2020, section 2): the cell and the network around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Edge = tuple[int, int]

CELL_OUTPUT = 3
_CONVOLUTIONS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


class ConvBN(nn.Sequential):
    """Convolution without bias, batch normalisation; the input is rectified by the caller. `[b, i, h, w]` to
    `[b, o, ceil(h / stride), ceil(w / stride)]`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
        )

    def of_zero(self, like: Tensor) -> Tensor:
        """What the layer answers to an all-zero input: a convolution of zero is zero, so only BN has work."""
        return self[1](torch.zeros_like(like))


class Cell(nn.Module):
    """A cell: node 0 is the input, nodes 1 to 3 sum their incoming edges, node 3 is the output; `[b, c, h, w]`.

    `operations` maps every edge (source, target) to an official operation name. Edges that cannot reach
    the output hold their parameters, as in the benchmark, but are not computed; `none` and operations
    without weights on an empty sum are left out of the sums. Both leave the output bit for bit the same.
    """

    def __init__(self, operations: Mapping[Edge, str], channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {
                _name(edge): ConvBN(channels, channels, _CONVOLUTIONS[operation])
                for edge, operation in operations.items()
                if operation in _CONVOLUTIONS
            }
        )
        self.plan = _plan(operations)

    def forward(self, x: Tensor) -> Tensor:
        nodes: dict[int, Tensor] = {0: x}
        # ReLU and pooling have no weights: one result per node serves all edges that leave it.
        rectified: dict[int, Tensor] = {}
        pooled: dict[int, Tensor] = {}
        for (source, target), operation in self.plan:
            if operation == "skip_connect":
                term = nodes[source]
            elif operation == "avg_pool_3x3":
                if source not in pooled:
                    pooled[source] = functional.avg_pool2d(nodes[source], 3, 1, 1, count_include_pad=False)
                term = pooled[source]
            elif source not in nodes:
                term = self.convolutions[_name((source, target))].of_zero(x)
            else:
                if source not in rectified:
                    rectified[source] = functional.relu(nodes[source])
                term = self.convolutions[_name((source, target))](rectified[source])
            nodes[target] = nodes[target] + term if target in nodes else term
        return nodes[CELL_OUTPUT] if CELL_OUTPUT in nodes else torch.zeros_like(x)


def _name(edge: Edge) -> str:
    return f"{edge[0]}-{edge[1]}"


def _plan(operations: Mapping[Edge, str]) -> tuple[tuple[Edge, str], ...]:
    """The edges to compute, by target and then source: those that reach the output and are not known to be zero."""
    live = {CELL_OUTPUT}
    for source, target in sorted(operations, reverse=True):
        if target in live and operations[source, target] != "none":
            live.add(source)
    plan = []
    filled = {0}
    for (source, target), operation in sorted(operations.items(), key=lambda item: item[0][::-1]):
        zero = operation == "none" or (source not in filled and operation not in _CONVOLUTIONS)
        if target in live and not zero:
            filled.add(target)
            plan.append(((source, target), operation))
    return tuple(plan)


class ReductionBlock(nn.Module):
    """The residual block of stride 2 between stages: `[b, c, h, w]` to `[b, 2c, ceil(h / 2), ceil(w / 2)]`.

    The shortcut is a 2x2 average pool and a 1x1 convolution; at an odd size its last window averages the
    pixels that exist (the benchmark knows even sizes only, where both are the same).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvBN(inputs, outputs, 3, stride=2)
        self.second = ConvBN(outputs, outputs, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(functional.relu(x)))
        return self.second(hidden) + self.shortcut(x)


class CellNetwork(nn.Module):
    """Stem, three stages of `cells` cells at c, 2c and 4c channels, classifier: `[b, inputs, h, w]` to `[b, outputs]`.

    `make_cell(channels)` gives a module that keeps the shape `[b, channels, h, w]`.
    """

    def __init__(
        self, make_cell: Callable[[int], nn.Module], inputs: int, outputs: int, channels: int, cells: int
    ) -> None:
        super().__init__()
        self.stem = ConvBN(inputs, channels, 3)
        body: list[nn.Module] = []
        for width in (channels, 2 * channels, 4 * channels):
            if body:
                body.append(ReductionBlock(width // 2, width))
            body.extend(make_cell(width) for _ in range(cells))
        self.body = nn.Sequential(*body)
        self.norm = nn.BatchNorm2d(4 * channels)
        self.classifier = nn.Linear(4 * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        features = functional.relu(self.norm(self.body(self.stem(x))))
        return self.classifier(features.mean((2, 3)))
