"""DARTS: a normal and a reduction cell of four nodes, stacked (Liu, Simonyan and Yang, ICLR 2019).

Nodes 0 and 1 of a cell are the outputs of the two cells before it; each of the nodes 2 to 5 adds one operation on each
of two distinct earlier nodes; the four sums are concatenated and leave the cell. There are 180 choices of inputs and
7^8 of operations per cell: 1,037,664,180. Text form: the published genotype, two pairs of operation and input per node:
`Genotype(normal=[('skip_connect', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))`.

Conventions where the published program leaves room:
- In a reduction cell, operations on the nodes 0 and 1 have stride 2. At odd sizes the factorised reduction pads the
  shifted half of its input by a row and a column of zeros.
- Convolutions have no biases. The stem's batch normalisation is affine in both styles.
- `darts(levels=3)` gives the cells before, between and after the two reductions normal cells of their own, and each
  reduction its own: five cells, `normal1`, `reduce1`, `normal2`, `reduce2`, `normal3`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.relax import Picker
from nas_core.space import SearchSpace, check_legal
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.darts.genotype import (
    KEPT,
    NODES,
    NONE,
    NORMAL,
    OPERATIONS,
    PUBLISHED,
    REDUCE,
    SKIP,
    Cell,
    Node,
    canonical,
    from_text,
    to_text,
)
from search_spaces.darts.plan import (
    EDGES,
    KERNELS,
    REPEATS,
    STEM,
    Layer,
    Size,
    edge_group,
    stem_of,
)
from search_spaces.layers.stems import IMAGENET, halvings

if TYPE_CHECKING:
    from torch import nn

CELLS = {1: (NORMAL, REDUCE), 3: ("normal1", "reduce1", "normal2", "reduce2", "normal3")}


class Darts(SearchSpace):
    """The DARTS cell space: inputs and operations of the four nodes of every cell type.

    With `levels=3` cells are told apart by their resolution (see the module). Raises UsageError for other values
    than 1 and 3.
    """

    name = "darts"
    version = 2
    earlier = (1,)
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size

    def __init__(self, levels: int = 1) -> None:
        if type(levels) is not int or levels not in CELLS:
            raise UsageError(
                f"darts: levels is {levels!r}; use 1 (a normal and a reduction cell) "
                "or 3 (cells before, between and after the two reductions have their own)"
            )
        self.name = "darts" if levels == 1 else f"darts-{levels}"
        self.cell_types = CELLS[levels]
        self.choices = tuple(choice for cell in self.cell_types for choice in _choices(cell))
        self.named: Mapping[str, Architecture] = {
            name: self._architecture(self._everywhere(cells)) for name, cells in PUBLISHED.items()
        }

    def cells(self, arch: Architecture) -> dict[str, Cell]:
        """The cell of every type. Raises UsageError for an illegal architecture."""
        check_legal(self, arch)
        return self._cells(arch)

    def layers(self, task: Task, size: SizeConfig) -> list[Layer]:
        """All cells of the network in order. Raises UsageError for another task, or a size of another space."""
        size = _deep_enough(size, self)
        _, height, width = task.images()
        size = size.fitted(task)
        reductions = (size.layers // 3, 2 * size.layers // 3)
        result: list[Layer] = []
        channels, shape, filters, halve = (STEM * size.channels,) * 2, (height, width), size.channels, False
        if size.stem == "imagenet":
            channels, shape, halve = (size.channels,) * 2, halvings(shape, 3)[-1], True
        for position in range(size.layers):
            stride = 2 if position in reductions else 1
            filters *= stride
            kind = NORMAL if stride == 1 else REDUCE
            if len(self.cell_types) > 2:
                kind += str(1 + sum(position > reduction for reduction in reductions))
            with_head = size.auxiliary and position == reductions[1]
            layer = Layer(kind, stride, filters, channels, shape, halve, with_head)
            result.append(layer)
            channels, shape, halve = (channels[1], layer.outputs), layer.output_shape, stride == 2
        return result

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """The network for images of any shape, `(n, *task.input_shape)` to `(n, task.outputs)`; every edge is a group,
        shared by all cells of a type.

        With `size.auxiliary`, in training mode, `(logits, auxiliary logits)`; the weight of the second loss is the
        network's `auxiliary_weight`. Raises UsageError for another task or size.
        """
        from search_spaces.darts.network import DartsNetwork

        size = _deep_enough(size, self).fitted(task)
        layers = self.layers(task, size)
        stem = [convolution.channels for convolution in stem_of(task, size)]
        head = size.auxiliary_head == IMAGENET
        return DartsNetwork(picker, layers, task.input_shape[0], stem, task.outputs, size.drop_path, head)

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        """The operation of each of the 14 edges of every cell type; None for those that are not used."""
        used = {
            edge_group(cell, source, node): operation
            for cell, nodes in self._cells(arch).items()
            for node, inputs in zip(NODES, nodes, strict=True)
            for source, operation in inputs
        }
        return {name: used.get(name) for cell in self.cell_types for name in _groups(cell)}

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """The genotype of mixing weights (Liu et al., section 2.4): an edge is as strong as the largest weight of an
        operation other than `none`; every node keeps the two strongest edges, each with that operation. Of equals
        the first."""
        return self._architecture(
            {cell: tuple(_strongest(cell, node, strengths) for node in NODES) for cell in self.cell_types}
        )

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params` and `macs` of the network that is deployed: the auxiliary classifier counts nothing.

        `macs` are the multiply-adds of all convolutions and the classifier for one image; batch normalisation,
        activations, pooling, additions count nothing. Raises UsageError as `build`.
        """
        size = _deep_enough(size, self)
        layers, cells = self.layers(task, size), self.cells(arch)
        params = macs = 0
        inputs = task.input_shape[0]
        for convolution in stem_of(task, size):
            weights = 9 * inputs * convolution.channels
            params += weights + 2 * convolution.channels
            macs += weights * math.prod(convolution.shape)
            inputs = convolution.channels
        for layer in layers:
            for more_params, more_macs in _layer_costs(layer, cells[layer.cell]):
                params, macs = params + more_params, macs + more_macs
        outputs = layers[-1].outputs
        return {"params": params + (outputs + 1) * task.outputs, "macs": macs + outputs * task.outputs}

    def identity(self, arch: Architecture) -> str:
        """The text of the architecture with the nodes of its cells in one canonical order.

        Equal where every cell of one is that of the other with its nodes renumbered. Then the networks compute the
        same functions: with weights copied (and the input channels of what reads a cell permuted like its nodes)
        the outputs agree. Nothing is simplified.
        """
        return to_text({kind: canonical(cell) for kind, cell in self._cells(arch).items()})

    def graph(self, arch: Architecture) -> ArchGraph:
        """All cell types side by side: two inputs, two operations and their sum per node, output. A skip of stride 2
        has weights and is labelled `factorised_reduction`."""
        labels: list[str] = []
        edges: list[tuple[int, int]] = []
        for kind, cell in self._cells(arch).items():
            nodes = [len(labels), len(labels) + 1]
            labels += [f"{kind} input c[k-2]", f"{kind} input c[k-1]"]
            for inputs in cell:
                first = len(labels)
                for side, (source, operation) in enumerate(inputs):
                    reduced = operation == SKIP and source < 2 and kind.startswith(REDUCE)
                    labels.append("factorised_reduction" if reduced else operation)
                    edges += [(nodes[source], first + side), (first + side, first + 2)]
                labels.append("add")
                nodes.append(first + 2)
            edges += [(node, len(labels)) for node in nodes[2:]]
            labels.append(f"{kind} output")
        return ArchGraph(tuple(labels), tuple(edges), skips=frozenset({SKIP}), zeros=frozenset({NONE}))

    def to_text(self, arch: Architecture) -> str:
        """`Genotype(normal=[(operation, input), ...], normal_concat=range(2, 6), ...)`, inputs in ascending order."""
        return to_text(self._cells(arch))

    def from_text(self, text: str) -> Architecture:
        """The architecture of a genotype. With `levels=3` one of two cells gives every level the same. Raises
        ValueError, naming what is wrong with the text."""
        return self._architecture(self._everywhere(from_text(text, self.cell_types, (NORMAL, REDUCE))))

    def _cells(self, arch: Architecture) -> dict[str, Cell]:
        """The cells of a legal architecture."""
        return {
            cell: tuple(_node(*(str(arch.values[name]) for name in _names(cell, node))) for node in NODES)
            for cell in self.cell_types
        }

    def _architecture(self, cells: Mapping[str, Cell]) -> Architecture:
        values: dict[str, Value] = {}
        for cell in self.cell_types:
            for number, ((one, first), (other, second)) in zip(NODES, cells[cell], strict=True):
                values |= zip(_names(cell, number), (f"{one},{other}", first, second), strict=True)
        return Architecture(self.name, values)

    def _everywhere(self, cells: Mapping[str, Cell]) -> Mapping[str, Cell]:
        """A normal and a reduction cell for the types of this space."""
        return {kind: cells.get(kind) or cells[kind.rstrip("123")] for kind in self.cell_types}


@cache
def _groups(cell: str) -> tuple[str, ...]:
    return tuple(edge_group(cell, source, node) for source, node in EDGES)


@cache
def _names(cell: str, node: int) -> tuple[str, str, str]:
    return f"{cell}/node{node}/inputs", f"{cell}/node{node}/operation1", f"{cell}/node{node}/operation2"


def _choices(cell: str) -> Iterator[Choice]:
    """Two inputs in ascending order are one choice, so that no architecture has two names."""
    for node in NODES:
        inputs, first, second = _names(cell, node)
        yield Choice(inputs, tuple(f"{one},{other}" for one, other in combinations(range(node), 2)), "inputs")
        yield Choice(first, KEPT, "operation")
        yield Choice(second, KEPT, "operation")


def _node(inputs: str, first: str, second: str) -> Node:
    one, other = inputs.split(",")
    return (int(one), first), (int(other), second)


def _strongest(cell: str, node: int, strengths: Mapping[str, Sequence[float]]) -> Node:
    edges = []
    for source in range(node):
        weights = dict(zip(OPERATIONS, strengths[edge_group(cell, source, node)], strict=True))
        operation = max(KEPT, key=weights.__getitem__)
        edges.append((weights[operation], source, operation))
    strongest = sorted(edges, key=lambda edge: -edge[0])[:2]
    one, other = sorted((source, operation) for _, source, operation in strongest)
    return one, other


# -- costs ----------------------------------------------------------------------------------------------------


def _layer_costs(layer: Layer, cell: Cell) -> Iterator[tuple[int, int]]:
    """Parameters and multiply-adds of every convolution with its batch normalisation."""
    width, before = layer.width, math.prod(layer.shape)
    for channels in layer.channels:
        yield (channels + 2) * width, channels * width * before
    for inputs in cell:
        for source, operation in inputs:
            yield operation_costs(operation, width, layer.path_stride(source), math.prod(layer.output_shape))


def operation_costs(operation: str, width: int, stride: int, area: int) -> tuple[int, int]:
    """Parameters and multiply-adds of an operation on `width` channels whose output has `area` pixels."""
    if operation == SKIP and stride == 2:
        return (width + 2) * width, width * width * area
    if operation not in KERNELS:
        return 0, 0
    weights = (KERNELS[operation] ** 2 + width) * width
    return REPEATS[operation] * (weights + 2 * width), REPEATS[operation] * weights * area


def _deep_enough(size: SizeConfig, space: Darts) -> Size:
    """The space's own size, with a place for each of its cells. Raises UsageError."""
    own = Size.own(size, space.name)
    if len(space.cell_types) > 2 and own.layers < 5:
        raise UsageError(
            f"space '{space.name}' needs 5 layers or more, so that each of its cells has a place; got {own.layers}"
        )
    return own
