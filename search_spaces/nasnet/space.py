"""NASNet: a normal and a reduction cell of five blocks, stacked N @ F (Zoph, Vasudevan, Shlens and Le, CVPR 2018).

A block reads two hidden states, applies an operation to each, and adds or concatenates the results. The states are
the outputs of the two cells before (0: h_{i-1}, 1: h_i) and the blocks so far; the states that no block reads are
concatenated and leave the cell. Text form: `normal=B|B|B|B|B reduction=B|B|B|B|B`, where a block B is
`operation~state+operation~state` for a sum and `operation~state&operation~state` for a concatenation.

Conventions where the paper leaves room:
- Operations: ReLU, convolution, BN. Separable convolutions are applied twice; 1x7 then 7x1 is one operation of two
  convolutions and one BN; the dilated 3x3 is a full convolution of rate 2. Pooling averages the pixels that exist.
- The two inputs are fitted to the cell's width by ReLU, 1x1, BN (factorised reduction where h_{i-1} is twice as
  large); so all states of a cell have one width. A concatenation is brought back to it by ReLU, 1x1, BN.
- In a reduction cell, operations on the two inputs have stride 2; identity is then a factorised reduction, and so
  is an input that no block reads.
- The published networks have F = 24 f filters in the penultimate layer: cells of width f, doubled twice, and six
  concatenated states. Here F always means f = F / 24; with u unread states the penultimate layer has 4 f u.
- In the authors' program NASNet-A also concatenates states that are read: h_{i-1} in the normal cell, the second
  block in the reduction cell. Here the rule of the paper holds (as in the DARTS release), with fewer parameters.
- Identities are not dropped by ScheduledDropPath; the probability does not depend on the depth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, permutations, product
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError, nearest
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.layers.stems import halved
from search_spaces.nasnet.plan import (
    ADD,
    CELLS,
    COMBINATIONS,
    CONCAT,
    IDENTITY,
    NORMAL,
    OPERATIONS,
    PER_FILTER,
    REDUCTION,
    SPLIT,
    Block,
    Cell,
    Layer,
    Size,
    kernel,
    unread,
    weighted,
)

if TYPE_CHECKING:
    from torch import nn

MOST_BLOCKS = 7  # the canonical form may try every order of equal blocks

PUBLISHED = {
    "NASNet-A": (
        "normal=sep_conv_5x5~1+sep_conv_3x3~0|sep_conv_5x5~0+sep_conv_3x3~0|avg_pool_3x3~1+identity~0"
        "|avg_pool_3x3~0+avg_pool_3x3~0|sep_conv_3x3~1+identity~1 "
        "reduction=sep_conv_5x5~1+sep_conv_7x7~0|max_pool_3x3~1+sep_conv_7x7~0|avg_pool_3x3~1+sep_conv_5x5~0"
        "|identity~3+avg_pool_3x3~2|sep_conv_3x3~2+max_pool_3x3~1"
    ),
    "AmoebaNet-A": (
        "normal=avg_pool_3x3~0+max_pool_3x3~1|sep_conv_3x3~0+sep_conv_5x5~2|sep_conv_3x3~0+avg_pool_3x3~3"
        "|sep_conv_3x3~1+identity~1|identity~0+avg_pool_3x3~1 "
        "reduction=avg_pool_3x3~0+sep_conv_3x3~1|max_pool_3x3~0+sep_conv_7x7~2|sep_conv_7x7~0+avg_pool_3x3~1"
        "|max_pool_3x3~0+max_pool_3x3~1|conv_1x7_7x1~0+sep_conv_3x3~5"
    ),
}
"""Zoph et al. 2018, figure 4; Real et al., AAAI 2019, figure 5. All of their operations are among the 13."""


class NASNet(SearchSpace):
    """Normal and reduction cells of `blocks` blocks (1 to 7; the paper has 5): ten choices per block.

    Every block chooses two of the states before it, two of 13 operations, and a combination, in the controller's
    order. With five blocks there are ((6!)^2 13^10 2^5)^2 = 5.2e36 architectures. Raises UsageError.
    """

    name = "nasnet"
    version = 2
    earlier = (1,)
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size
    why_not_relaxable = (
        "a cell concatenates the states that no block reads, so its width depends on the inputs of all blocks"
    )

    def __init__(self, blocks: int = 5) -> None:
        if type(blocks) is not int or not 1 <= blocks <= MOST_BLOCKS:
            raise UsageError(f"nasnet: blocks is {blocks!r}; use 1 to {MOST_BLOCKS} (the paper has 5)")
        self._blocks = blocks
        self.choices = tuple(choice for cell in CELLS for block in range(blocks) for choice in _choices(cell, block))
        self.named: Mapping[str, Architecture] = (
            {name: self.from_text(text) for name, text in PUBLISHED.items()} if blocks == 5 else {}
        )

    def cells(self, arch: Architecture) -> dict[str, Cell]:
        """The two cells. Raises UsageError for an illegal architecture."""
        check_legal(self, arch)
        return _cells(arch, self._blocks)

    def layers(self, arch: Architecture, task: Task, size: SizeConfig) -> list[Layer]:
        """All cells of the network in order. Raises UsageError for an illegal architecture, task or size."""
        size = Size.own(size, self.name)
        _, *sides = task.images()
        size = size.fitted(task)
        cells = self.cells(arch)
        width = size.filters // PER_FILTER
        plan: list[tuple[str, int]] = []
        for scale in (1, 2, 4):
            plan += [(REDUCTION, scale * width)] if plan else []
            plan += [(NORMAL, scale * width)] * size.cells
        auxiliary = 2 * size.cells  # the last cell before the last reduction
        shape = (sides[0], sides[1])
        if size.stem == "imagenet":
            # Very narrow networks keep two filters, which a factorised reduction needs.
            plan = [(REDUCTION, max(2, width // 4)), (REDUCTION, max(2, width // 2)), *plan]
            shape, auxiliary = halved(shape), auxiliary + 2
        result: list[Layer] = []
        channels, halve = (size.stem_filters, size.stem_filters), False
        for position, (kind, filters) in enumerate(plan):
            stride = 2 if kind == REDUCTION else 1
            with_head = size.auxiliary and position == auxiliary
            layer = Layer(cells[kind], stride, filters, channels, shape, halve, with_head)
            result.append(layer)
            channels, shape, halve = (channels[1], layer.outputs), layer.output_shape, stride == 2
        return result

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The network, untrained, for images of any shape: `(n, *task.input_shape)` to `(n, task.outputs)`.

        With `size.auxiliary`, in training mode, `(logits, auxiliary logits)`; the weight of the second loss is the
        network's `auxiliary_weight`. Raises UsageError for an illegal architecture, task or size.
        """
        from search_spaces.nasnet.network import NASNetwork

        size = Size.own(size, self.name).fitted(task)
        layers = self.layers(arch, task, size)
        stride = 2 if size.stem == "imagenet" else 1
        return NASNetwork(layers, task.input_shape[0], size.stem_filters, stride, task.outputs, size.drop_path)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params` and `macs` of the network that is deployed: the auxiliary classifier counts nothing.

        `macs` are the multiply-adds of all convolutions and the classifier for one image; biases, BN, activations,
        pooling, additions count nothing.
        """
        size = Size.own(size, self.name)
        layers = self.layers(arch, task, size)
        stem = 9 * task.input_shape[0] * size.stem_filters
        params, macs = stem + 2 * size.stem_filters, stem * math.prod(layers[0].shape)
        for layer in layers:
            for more_params, more_macs in _layer_costs(layer):
                params, macs = params + more_params, macs + more_macs
        outputs = layers[-1].outputs
        return {"params": params + (outputs + 1) * task.outputs, "macs": macs + outputs * task.outputs}

    def identity(self, arch: Architecture) -> str:
        """The text of the architecture in one canonical order; equal where both cells are isomorphic.

        Two cells are isomorphic where a renumbering of the blocks and swaps of the two sides of blocks turn one into
        the other. Then the networks compute the same functions: with weights copied (and the input channels of what
        reads a concatenation permuted like it) the outputs agree. Every block keeps weights of its own: reading
        one block twice is another architecture than reading two equal blocks. Nothing is simplified: a sum
        of sums and another bracketing of it differ.
        """
        return _text({kind: _canonical(cell) for kind, cell in _cells(arch, self._blocks).items()})

    def graph(self, arch: Architecture) -> ArchGraph:
        """Both cells side by side: inputs, two operations and a combination per block, output."""
        labels: list[str] = []
        edges: list[tuple[int, int]] = []
        for kind, cell in _cells(arch, self._blocks).items():
            states = [len(labels), len(labels) + 1]
            labels += [f"{kind} input h[i-1]", f"{kind} input h[i]"]
            for block in cell:
                first = len(labels)
                labels += [*block.operations, block.combination]
                edges += [(states[state], first + side) for side, state in enumerate(block.inputs)]
                edges += [(first, first + 2), (first + 1, first + 2)]
                states.append(first + 2)
            edges += [(states[state], len(labels)) for state in unread(cell)]
            labels.append(f"{kind} output")
        return ArchGraph(tuple(labels), tuple(edges))

    def to_text(self, arch: Architecture) -> str:
        """`normal=B|B|B|B|B reduction=B|B|B|B|B`; see the module for the blocks."""
        return _text(_cells(arch, self._blocks))

    def from_text(self, text: str) -> Architecture:
        """The architecture of a text. Raises ValueError, naming what is wrong with it."""
        match = re.fullmatch(r"normal=(\S*)\s+reduction=(\S*)", text.strip())
        if not match:
            raise ValueError(f"'{text}' is no architecture: write normal=BLOCK|BLOCK|... reduction=BLOCK|BLOCK|...")
        values: dict[str, str | int] = {}
        for kind, cell in zip(CELLS, match.groups(), strict=True):
            parts = cell.split("|")
            if len(parts) != self._blocks:
                raise ValueError(f"the {kind} cell '{cell}' has {len(parts)} blocks; it needs {self._blocks}")
            for number, part in enumerate(parts):
                block = _parse(part, number)
                values |= zip(_names(kind, number), (*block.inputs, *block.operations, block.combination), strict=True)
        return Architecture(self.name, values)


def _names(cell: str, block: int) -> tuple[str, ...]:
    parts = ("input1", "input2", "operation1", "operation2", "combination")
    return tuple(f"{cell}/block{block}/{part}" for part in parts)


def _choices(cell: str, block: int) -> Iterator[Choice]:
    states = tuple(range(block + 2))
    options: tuple[tuple[Value, ...], ...] = (states, states, OPERATIONS, OPERATIONS, COMBINATIONS)
    kinds = ("input", "input", "operation", "operation", "combination")
    for name, given, kind in zip(_names(cell, block), options, kinds, strict=True):
        yield Choice(name, given, kind)


def _cells(arch: Architecture, blocks: int) -> dict[str, Cell]:
    """The two cells of a legal architecture."""
    result = {}
    for kind in CELLS:
        values = ([arch.values[name] for name in _names(kind, block)] for block in range(blocks))
        result[kind] = tuple(Block((int(v[0]), int(v[1])), (str(v[2]), str(v[3])), str(v[4])) for v in values)
    return result


def _text(cells: Mapping[str, Cell]) -> str:
    return " ".join(f"{kind}={'|'.join(map(_block_text, cell))}" for kind, cell in cells.items())


def _block_text(block: Block) -> str:
    joint = "+" if block.combination == ADD else "&"
    return joint.join(f"{operation}~{state}" for state, operation in block.paths)


def _parse(part: str, number: int) -> Block:
    """The block of `operation~state+operation~state`, at its place in the cell."""
    joints = [letter for letter in part if letter in "+&"]
    if len(joints) != 1:
        raise ValueError(f"block {number} '{part}' must join two operation~state by '+' (add) or '&' (concat)")
    inputs, operations = [], []
    for path in part.split(joints[0]):
        operation, separator, state = path.partition("~")
        if not separator:
            raise ValueError(f"'{path}' in block {number} '{part}' is not of the form operation~state")
        if operation not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise ValueError(
                f"'{operation}' in block {number} '{part}' is no operation{nearest(operation, OPERATIONS)} ({known})"
            )
        if state not in map(str, range(number + 2)):
            raise ValueError(f"'{path}' in block {number} '{part}' reads '{state}'; it may read 0 to {number + 1}")
        inputs.append(int(state))
        operations.append(operation)
    return Block((inputs[0], inputs[1]), (operations[0], operations[1]), ADD if joints[0] == "+" else CONCAT)


@lru_cache(maxsize=4096)  # a search asks for the identity of the same architecture again and again
def _canonical(cell: Cell) -> Cell:
    """The same cell for all cells isomorphic to it.

    Blocks are ordered by the expression they compute, which is longer than those it contains; the order of
    blocks of equal expressions is the one that gives the smallest cell.
    """
    expressions = ["0", "1"]
    for block in cell:
        terms = sorted(f"{operation}({expressions[state]})" for state, operation in block.paths)
        expressions.append(f"{block.combination}({','.join(terms)})")

    def place(block: int) -> tuple[int, str]:
        return len(expressions[block + 2]), expressions[block + 2]

    groups = [list(group) for _, group in groupby(sorted(range(len(cell)), key=place), place)]
    orders = product(*map(permutations, groups))
    return min((_renumbered(cell, [block for group in order for block in group]) for order in orders), key=_key)


def _renumbered(cell: Cell, order: Sequence[int]) -> Cell:
    """The blocks in another order, which must be topological, with the two sides of each sorted."""
    new = {0: 0, 1: 1} | {old + 2: position + 2 for position, old in enumerate(order)}
    result = []
    for old in order:
        one, other = sorted((new[state], operation) for state, operation in cell[old].paths)
        result.append(Block((one[0], other[0]), (one[1], other[1]), cell[old].combination))
    return tuple(result)


def _key(cell: Cell) -> list[tuple[Any, ...]]:
    return [(block.inputs, block.operations, block.combination) for block in cell]


# -- costs ----------------------------------------------------------------------------------------------------


def _layer_costs(layer: Layer) -> Iterator[tuple[int, int]]:
    """Parameters and multiply-adds of every convolution with its BN."""
    width = layer.width
    before, after = math.prod(layer.shape), math.prod(layer.output_shape)
    for channels in layer.channels:
        yield (channels + 2) * width, channels * width * before
    for block in layer.cell:
        for state, operation in block.paths:
            shape = layer.shape if state < 2 else layer.output_shape
            yield operation_costs(operation, width, layer.path_stride(state), shape)
        if block.combination == CONCAT:
            yield (2 * width + 2) * width, 2 * width * width * after
    for state in unread(layer.cell):
        if layer.path_stride(state) == 2:
            yield operation_costs(IDENTITY, width, 2, layer.shape)


def operation_costs(operation: str, width: int, stride: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-adds of an operation on `width` channels of the given resolution."""
    if not weighted(operation, stride):
        return 0, 0
    height, _ = shape
    after = halved(shape) if stride == 2 else shape
    area = math.prod(after)
    if operation == IDENTITY:
        return (width + 2) * width, width * width * area
    size = kernel(operation)
    if operation.startswith("sep"):
        weights = (size**2 + width) * width
        return 2 * (weights + 2 * width), 2 * weights * area
    if operation in SPLIT:
        weights = size * width**2
        return 2 * weights + 2 * width, weights * (height * after[1] + area)
    weights = size**2 * width**2
    return weights + 2 * width, weights * area
