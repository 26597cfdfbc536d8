"""NAS-Bench-201 (Dong and Yang, ICLR 2020; the topology space of NATS-Bench): 5^6 = 15,625 cells.

A cell has four nodes and one operation on each of its six edges; a node is the sum of its incoming edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import nearest
from nas_core.graph import ArchGraph
from nas_core.relax import Picker, derive_by_choice
from nas_core.space import SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.layers.stems import AUTO, CIFAR, Stem, halvings, stem_for

if TYPE_CHECKING:
    from torch import nn

NONE, SKIP, CONV1, CONV3, POOL = OPERATIONS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)
KERNELS = {CONV1: 1, CONV3: 3}

# (source, target) of every edge in the order of the official string.
EDGES = {
    "cell/edge.0-1": (0, 1),
    "cell/edge.0-2": (0, 2),
    "cell/edge.1-2": (1, 2),
    "cell/edge.0-3": (0, 3),
    "cell/edge.1-3": (1, 3),
    "cell/edge.2-3": (2, 3),
}

# The cell with its operations as nodes, 1 to 6 in the order of the edges, between the input 0 and the output 7.
LINKS = tuple(
    [(0, node) for node, (source, _) in enumerate(EDGES.values(), 1) if source == 0]
    + [
        (node, other)
        for node, (_, target) in enumerate(EDGES.values(), 1)
        for other, (source, _) in enumerate([*EDGES.values(), (3, 4)], 1)
        if source == target
    ]
)


class Size(SizeConfig):
    """`channels` of the first stage (doubled twice) and `cells` per stage (three stages).

    The benchmark's stem is one 3x3 convolution. For photographs there are two of stride 2, the first half as wide.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"channels": 16, "cells": 1},
        "full": {"channels": 16, "cells": 5},
    }

    unsaid: ClassVar[Mapping[str, Any]] = {"stem": AUTO}
    later: ClassVar[frozenset[str]] = frozenset({"stem"})

    channels: int = Field(default=16, ge=1, le=1024)
    cells: int = Field(default=5, ge=1, le=100)
    stem: Stem = Field(default="cifar", description="of one convolution, or of two of stride 2 for photographs")

    def fitted(self, task: Task) -> Size:
        return self.model_copy(update={"stem": stem_for(task)}) if self.stem == AUTO else self


class NasBench201(SearchSpace):
    """The search space; architectures write and read the official string `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""

    name = "nasbench201"
    version = 2
    earlier = (1,)
    choices = tuple(Choice(name, OPERATIONS, kind="operation") for name in EDGES)
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """The benchmark's network for images of any shape and any number of classes; every edge is a group, shared by
        all cells.

        It has the benchmark's parameters to the unit, also those of edges that cannot reach the output.
        Raises UsageError for another kind of task, or a size of another space.
        """
        from search_spaces.nasbench201.network import Cell, CellNetwork

        inputs, *_ = task.images()
        fitted = Size.own(size, self.name).fitted(task)
        narrow = None if fitted.stem == CIFAR else _stem(task, fitted)[0][0]
        return CellNetwork(
            lambda width: Cell(picker, EDGES, width), inputs, task.outputs, fitted.channels, fitted.cells, narrow
        )

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """The strongest operation of every edge; `none` may be selected (Dong and Yang, section 4)."""
        return derive_by_choice(self, strengths)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params`, and `macs`: the multiply-adds of all convolutions and the classifier for one image.

        As in the benchmark every edge counts, also one that cannot reach the output and that `build`
        therefore does not compute. Additions, biases, BN, ReLU and pooling count nothing. At C=16, N=5,
        3x32x32 and 10 classes this is 7,783,040 + 35,389,440 per 3x3 edge + 3,932,160 per 1x1 edge; the
        benchmark's own FLOPs (7.78305 M at least) add the 10 biases of its classifier.
        """
        inputs, height, width = task.images()
        fitted = Size.own(size, self.name).fitted(task)
        channels, cells = fitted.channels, fitted.cells
        kernels = [KERNELS[str(value)] for value in arch.values.values() if value in KERNELS]
        params = macs = 0
        for outputs, (height, width) in _stem(task, fitted):
            weights, inputs = 9 * inputs * outputs, outputs
            params, macs = params + weights + 2 * outputs, macs + weights * height * width
        for stage in range(3):
            if stage:
                channels, height, width = 2 * channels, (height + 1) // 2, (width + 1) // 2
                block = (9 * channels // 2 + 9 * channels + channels // 2) * channels
                params, macs = params + block + 4 * channels, macs + block * height * width
            weights = cells * sum(kernel**2 for kernel in kernels) * channels**2
            params += weights + cells * len(kernels) * 2 * channels
            macs += weights * height * width
        return {
            "params": params + 2 * channels + (channels + 1) * task.outputs,
            "macs": macs + channels * task.outputs,
        }

    def identity(self, arch: Architecture) -> str:
        """The cell's output as a sum of terms, written in one way: 5,234 classes of the 15,625 cells.

        Equal for two cells when their weighted operations that reach the output correspond one to one
        so that, with weights and BN statistics copied, the outputs agree for every input, in training
        and in evaluation mode. The rule:

        - A node is a multiset of terms: `x` (the input of the cell), `1(...)` and `3(...)` (ReLU, convolution, BN
          of a sum of terms), each under any number of poolings `p`. A doubled term stays doubled.
        - `none` adds nothing and `skip_connect` adds the terms of its source.
        - `avg_pool_3x3` leaves padding out of its count, so it is linear and keeps constants: it is
          applied term by term.
        - A convolution of nothing is zero whatever its kernel, and BN turns zero into a value per channel: both
          kernels give the term `b`, which pooling does not change. Pooling or skipping nothing is nothing.
        - Each convolution has weights of its own. `3(x)+3(x)` are two; one that is used more than once
          is marked `'`. Only edge 0-1 can be: its result leaves node 1 on two edges, all others on one.
        """
        first, second_input, second_first, output_input, output_first, output_second = arch.values.values()
        mark = "'" if NONE not in (second_first, output_first, output_second) else ""
        one = _terms(first, ["x"], mark)
        two = _terms(second_input, ["x"]) + _terms(second_first, one)
        three = _terms(output_input, ["x"]) + _terms(output_first, one) + _terms(output_second, two)
        return "+".join(sorted(three)) or "0"

    def graph(self, arch: Architecture) -> ArchGraph:
        """Input, the six operations in edge order, output; an operation feeds those that leave its target node."""
        labels = ("input", *(str(arch.values[name]) for name in EDGES), "output")
        return ArchGraph(labels, LINKS, fixed_topology=True, skips=frozenset({SKIP}), zeros=frozenset({NONE}))

    def to_text(self, arch: Architecture) -> str:
        """The official string."""
        groups: dict[int, str] = {}
        for name, (source, target) in EDGES.items():
            groups[target] = f"{groups.get(target, '|')}{arch.values[name]}~{source}|"
        return "+".join(groups.values())

    def from_text(self, text: str) -> Architecture:
        """The architecture of an official string. Raises ValueError, naming what is wrong with the text."""
        groups = text.strip().split("+")
        if len(groups) != 3:
            raise ValueError(f"'{text}' has {len(groups)} nodes separated by '+'; a nasbench201 cell has 3")
        operations: list[str] = []
        for node, group in enumerate(groups, 1):
            if len(group) < 2 or not (group.startswith("|") and group.endswith("|")):
                raise ValueError(f"node {node} '{group}' must begin and end with '|'")
            parts = group[1:-1].split("|")
            if len(parts) != node:
                raise ValueError(f"node {node} '{group}' has {len(parts)} operations; it needs {node}")
            operations += [_operation(part, source, group) for source, part in enumerate(parts)]
        return Architecture(self.name, dict(zip(EDGES, operations, strict=True)))


def skip_string(arch: Architecture) -> str:
    """The published simplification of `skip_connect` (12,751 classes): a skip stands for its source."""
    return _published(arch, drop_none=False)


def skip_none_string(arch: Architecture) -> str:
    """The published simplification of `skip_connect` and `none` (6,466 classes).

    `none`, and any operation on a node that is a single zero, becomes the zero `#`. As published, zeros
    stay in the sums, and a sum of zeros is not itself a zero.
    """
    return _published(arch, drop_none=True)


def _published(arch: Architecture, drop_none: bool) -> str:
    """Nested expression of the output node; unlike `identity` it cannot tell one convolution used twice from two."""
    nodes = {0: "x"}
    sums: dict[int, list[str]] = {}
    for name, (source, target) in EDGES.items():
        operation, value = arch.values[name], nodes[source]
        if drop_none and (operation == NONE or value == "#"):
            term = "#"
        else:
            term = value if operation == SKIP else f"({value})@{operation}"
        sums.setdefault(target, []).append(term)
        nodes[target] = "+".join(sorted(sums[target]))
    return nodes[3]


def _terms(operation: object, value: Sequence[str], mark: str = "") -> list[str]:
    """The terms that an operation adds to its target, given the terms of its source (see `identity`)."""
    if operation == NONE:
        return []
    if operation == SKIP:
        return list(value)
    if operation == POOL:
        return [term if term == "b" else f"p{term}" for term in value]
    return [f"{KERNELS[str(operation)]}({'+'.join(sorted(value))}){mark}"] if value else ["b"]


def _operation(part: str, source: int, group: str) -> str:
    """The operation of one `operation~source` of an official string."""
    operation, separator, given = part.partition("~")
    if not separator:
        raise ValueError(f"'{part}' in '{group}' is not of the form operation~input")
    if operation not in OPERATIONS:
        raise ValueError(
            f"'{operation}' in '{group}' is no operation{nearest(operation, OPERATIONS)} ({', '.join(OPERATIONS)})"
        )
    if given != str(source):
        raise ValueError(f"'{part}' in '{group}' reads input '{given}'; the inputs of a node are 0, 1, ... in order")
    return operation


def _stem(task: Task, size: Size) -> list[tuple[int, tuple[int, int]]]:
    """Channels and resolution after each convolution of the stem."""
    _, height, width = task.images()
    if size.stem == CIFAR:
        return [(size.channels, (height, width))]
    return list(zip((max(1, size.channels // 2), size.channels), halvings((height, width), 2), strict=True))
