"""Torch layers of NAS-Bench-201 (Dong and Yang, ICLR 2020, section 2): the cell and the network around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.choice import Value
from nas_core.relax import Picker, Style
from search_spaces.layers.features import Features, blend
from search_spaces.supernet.picker import MixedOp, Term

Edge = tuple[int, int]

CELL_OUTPUT = 3


class ConvBN(nn.Sequential):
    """Convolution, batch normalisation; the input is rectified by the caller. `[b, i, h, w]` to
    `[b, o, ceil(h / stride), ceil(w / stride)]`.

    In the style of supernets the normalisation has no affine part, and the convolution a bias instead.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, style: Style = Style.STANDALONE
    ) -> None:
        affine = style == Style.STANDALONE
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not affine),
            nn.BatchNorm2d(outputs, affine=affine),
        )


class Convolution(ConvBN):
    """ReLU, convolution, batch normalisation: `[b, c, h, w]` to the same shape."""

    def __init__(self, channels: int, kernel: int, style: Style) -> None:
        super().__init__(channels, channels, kernel, style=style)

    def forward(self, node: Features) -> Tensor:
        return self[1](self.convolved(node))

    def weighted(self, weight: Tensor, node: Features) -> Tensor:
        """`weight * self(node)`, where the normalisation scales by the weight: no pass over the map of its own."""
        return scaled_norm(self[1], self.convolved(node), weight)

    def convolved(self, node: Features) -> Tensor:
        if node.relu is not None:
            return self[0](node.relu)
        zero = node.value  # a convolution of zero is its bias, so only BN has work
        return zero if self[0].bias is None else zero + self[0].bias.view(1, -1, 1, 1)


def scaled_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """`weight * norm(x)` for a scalar weight. Counts the batch as `norm` does."""
    if norm.training and norm.track_running_stats:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    # Dense, because torch's backward pass in channels_last reads past the end of an expanded one.
    gain = weight.repeat(norm.num_features) if norm.weight is None else weight * norm.weight
    return functional.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        gain,
        None if norm.bias is None else weight * norm.bias,
        norm.training,
        norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked or 1),
        norm.eps,
    )


class Skip(nn.Module):
    """The node itself."""

    skip = True

    def forward(self, node: Features) -> Tensor | None:
        return node.x


class Pool(nn.Module):
    """Average of 3x3; padding does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def plain(self) -> nn.Module:
        return self.pool

    def forward(self, node: Features) -> Tensor | None:
        return node.once("pool", self.pool)

    def weighted(self, weight: Tensor, node: Features) -> Tensor | None:
        """`weight * self(node)`; on a CPU a depthwise convolution is several times faster than torch's pooling."""
        if not node.value.is_cpu:
            pooled = self(node)
            return None if pooled is None else weight * pooled
        box = node.once("box", box_sum)
        return None if box is None else (weight / 9) * box


def box_sum(x: Tensor) -> Tensor:
    """Nine times the average of 3x3 where padding does not count; exact in every precision but for the sum."""
    channels = x.size(1)
    counts = functional.avg_pool2d(torch.ones_like(x[:1]), 3, 1, 1, divisor_override=1)
    return functional.conv2d(x, x.new_ones(channels, 1, 3, 3), padding=1, groups=channels) * (9 / counts)


class Zero(nn.Module):
    """Nothing."""

    zero = True

    def forward(self, node: Features) -> None:
        return None

    def zeros(self, node: Features) -> Tensor:
        return torch.zeros_like(node.value)


OPERATIONS: Mapping[str, Callable[[int, Style], nn.Module]] = {
    "none": lambda channels, style: Zero(),
    "skip_connect": lambda channels, style: Skip(),
    "nor_conv_1x1": lambda channels, style: Convolution(channels, 1, style),
    "nor_conv_3x3": lambda channels, style: Convolution(channels, 3, style),
    "avg_pool_3x3": lambda channels, style: Pool(),
}


class Cell(nn.Module):
    """A cell: node 0 is the input, nodes 1 to 3 sum their incoming edges, node 3 is the output; `[b, c, h, w]`.

    `edges` names the group of every edge (source, target). Edges that cannot reach the output hold their parameters,
    as in the benchmark, but are not computed; `none` and operations without weights on an empty sum are left out of
    the sums. Both leave the output bit for bit the same.
    """

    def __init__(self, picker: Picker, edges: Mapping[str, Edge], channels: int) -> None:
        super().__init__()
        self.routes = {edge: picker.route(name, tuple(OPERATIONS)) for name, edge in edges.items()}
        self.edges = nn.ModuleDict()
        for name, edge in edges.items():
            operations: dict[Value, Callable[[], nn.Module]] = {
                operation: partial(make, channels, picker.style) for operation, make in OPERATIONS.items()
            }
            self.edges[_name(edge)] = picker.module(name, operations)

    def forward(self, x: Tensor) -> Tensor:
        empty = frozenset(
            edge
            for edge, route in self.routes.items()
            if all(option == "none" for option, _ in route.selected()) and route.scalar() is None
        )
        nodes = {0: Features(x)}
        for target, sources in _plan(tuple(self.routes), empty):
            terms = [term for source in sources for term in _terms(self.edges[_name((source, target))], nodes[source])]
            nodes[target] = Features(blend(terms), like=x)
        return nodes[CELL_OUTPUT].value if CELL_OUTPUT in nodes else torch.zeros_like(x)


def _terms(edge: nn.Module, node: Features) -> list[Term]:
    if isinstance(edge, MixedOp):
        return edge.terms(node)
    answer = edge(node)
    return [] if answer is None else [(None, answer)]


def _name(edge: Edge) -> str:
    return f"{edge[0]}-{edge[1]}"


@lru_cache(maxsize=4096)
def _plan(edges: tuple[Edge, ...], empty: frozenset[Edge]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The nodes to compute, each with its sources: those that reach the output by edges that are not empty."""
    live = {CELL_OUTPUT}
    for source, target in sorted(edges, reverse=True):
        if target in live and (source, target) not in empty:
            live.add(source)
    return tuple(
        (node, tuple(source for source, target in sorted(edges) if target == node and (source, target) not in empty))
        for node in sorted(live - {0})
    )


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
    """Stem, three stages of cells at c, 2c and 4c channels, classifier: `[b, inputs, h, w]` to `[b, outputs]`.

    `make_cell(channels)` gives a module that keeps the shape `[b, channels, h, w]`. The stem keeps the resolution; with
    `narrow` it is one for photographs, of two convolutions that halve it each, the first to so many channels.
    """

    def __init__(
        self,
        make_cell: Callable[[int], nn.Module],
        inputs: int,
        outputs: int,
        channels: int,
        cells: int,
        narrow: int | None = None,
    ) -> None:
        super().__init__()
        self.stem: nn.Module = ConvBN(inputs, channels, 3)
        if narrow is not None:
            self.stem = nn.Sequential(ConvBN(inputs, narrow, 3, 2), nn.ReLU(), ConvBN(narrow, channels, 3, 2))
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
