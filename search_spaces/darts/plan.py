"""Sizes of DARTS networks, and what a cell is in its place of one: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from pydantic import Field

from nas_core.config import SizeConfig
from nas_core.task import Task
from search_spaces.darts.genotype import DIL3, DIL5, NODES, SEP3, SEP5
from search_spaces.layers.stems import AUTO, CIFAR, Stem, halved, halvings, stem_for

KERNELS = {SEP3: 3, SEP5: 5, DIL3: 3, DIL5: 5}
REPEATS = {SEP3: 2, SEP5: 2, DIL3: 1, DIL5: 1}
EDGES = tuple((source, node) for node in NODES for source in range(node))
STEM = 3  # the stem for small images has this many times the channels of the first cell


class Size(SizeConfig):
    """`layers` cells, the first of `channels` per node, doubled at the reductions, which are the cells `layers // 3`
    and `2 * layers // 3` (from 0). A supernet has no drop path of its own, as in the paper,
    and the auxiliary head only where the strategy trains with one (`enas`).

    The stem "imagenet" has three convolutions of stride 2, the last two of which are what the first cell reads."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"channels": 16, "layers": 8},
        "full": {"channels": 36, "layers": 20, "auxiliary": True, "drop_path": 0.2},
        "imagenet": {"channels": 48, "layers": 14, "auxiliary": True, "stem": "imagenet"},
    }

    unsaid: ClassVar[Mapping[str, Any]] = {"stem": AUTO, "auxiliary_head": AUTO}
    later: ClassVar[frozenset[str]] = frozenset({"auxiliary_head"})

    channels: int = Field(36, ge=1, le=1024, description="channels of a node in the first cell")
    layers: int = Field(20, ge=3, le=100, description="cells, two of them reductions")
    stem: Stem = Field("cifar", description="for small images, or for photographs")
    auxiliary: bool = Field(False, description="a second classifier while training; no part of params")
    drop_path: float = Field(0.0, ge=0.0, lt=1.0, description="probability of dropping a path at the last step")
    auxiliary_head: Stem = Field("cifar", description="the second classifier's form [auto: that of the stem]")

    def fitted(self, task: Task) -> Size:
        stem = stem_for(task) if self.stem == AUTO else self.stem
        head = stem if self.auxiliary_head == AUTO else self.auxiliary_head
        return self.model_copy(update={"stem": stem, "auxiliary_head": head})


@dataclass(frozen=True, slots=True)
class Layer:
    """A cell in its place of the network.

    `cell` is its type. `channels` are those of the outputs of the two cells before, `shape` is the resolution of the
    later one; `halve` says that the earlier one has twice of it. `auxiliary`: the second classifier reads the output.
    """

    cell: str
    stride: int
    width: int
    channels: tuple[int, int]
    shape: tuple[int, int]
    halve: bool
    auxiliary: bool

    @property
    def outputs(self) -> int:
        return len(NODES) * self.width

    @property
    def output_shape(self) -> tuple[int, int]:
        return halved(self.shape) if self.stride == 2 else self.shape

    def path_stride(self, source: int) -> int:
        """The stride of an operation on a node: only the inputs of a reduction cell are reduced."""
        return self.stride if source < 2 else 1


@dataclass(frozen=True, slots=True)
class StemConvolution:
    """A 3x3 convolution of the stem with its normalisation: what it gives."""

    channels: int
    shape: tuple[int, int]


def stem_of(task: Task, size: Size) -> list[StemConvolution]:
    """One of stride 1 for small images; three of stride 2 for those of ImageNet (Liu et al., section 3.3)."""
    shape = (task.input_shape[1], task.input_shape[2])
    if size.fitted(task).stem == CIFAR:
        return [StemConvolution(STEM * size.channels, shape)]
    widths = (max(1, size.channels // 2), size.channels, size.channels)
    return [StemConvolution(*pair) for pair in zip(widths, halvings(shape, 3), strict=True)]


@cache
def edge_group(cell: str, source: int, node: int) -> str:
    """The name of the group of an edge."""
    return f"{cell}/edge.{source}-{node}"
