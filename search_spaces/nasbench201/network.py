"""Torch layers of NAS-Bench-201 (Dong and Yang, ICLR 2020, section 2): the cell and the network around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.choice import Value
from nas_core.relax import Picker
from search_spaces.layers.features import Features, blend
from search_spaces.operators.conv import EDGE
from search_spaces.operators.conv.convolution import ConvBN
from search_spaces.supernet.picker import MixedOp, Term

Edge = tuple[int, int]

CELL_OUTPUT = 3


OPERATORS = EDGE.operators(tuple(EDGE.table))
OPTIONS = tuple(operator.label for operator in OPERATORS)


class Cell(nn.Module):
    """A cell: node 0 is the input, nodes 1 to 3 sum their incoming edges, node 3 is the output; `[b, c, h, w]`.

    `edges` names the group of every edge (source, target). Edges that cannot reach the output hold their parameters,
    as in the benchmark, but are not computed; `none` and operations without weights on an empty sum are left out of
    the sums. Both leave the output bit for bit the same.
    """

    def __init__(self, picker: Picker, edges: Mapping[str, Edge], channels: int) -> None:
        super().__init__()
        self.routes = {edge: picker.route(name, OPTIONS) for name, edge in edges.items()}
        self.edges = nn.ModuleDict()
        for name, edge in edges.items():
            operations: dict[Value, Callable[[], nn.Module]] = {
                operator.label: partial(operator.make, channels, 1, picker.style) for operator in OPERATORS
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
