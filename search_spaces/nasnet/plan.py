"""Sizes of NASNet, its operations, and what a cell is in its place of a network: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from nas_core.config import SizeConfig
from nas_core.task import Task
from search_spaces.layers.stems import AUTO, Stem, halved, stem_for

NORMAL, REDUCTION = CELLS = ("normal", "reduction")
ADD, CONCAT = COMBINATIONS = ("add", "concat")
IDENTITY = "identity"
OPERATIONS = (
    IDENTITY,
    "conv_1x7_7x1",
    "avg_pool_3x3",
    "max_pool_5x5",
    "conv_1x1",
    "sep_conv_3x3",
    "sep_conv_7x7",
    "conv_1x3_3x1",
    "dil_conv_3x3",
    "max_pool_3x3",
    "max_pool_7x7",
    "conv_3x3",
    "sep_conv_5x5",
)
SPLIT = ("conv_1x7_7x1", "conv_1x3_3x1")  # one convolution along the rows, then one along the columns
PER_FILTER = 24  # F of "N @ F" for each filter of the first stage


class Size(SizeConfig):
    """N @ F: `cells` normal cells per stage, `filters` F of the penultimate layer (see the module for its meaning).

    With the stem "imagenet" a convolution of stride 2 and two reduction cells come first, at a quarter and half of
    the width. "full" is the paper's 6 @ 768 for CIFAR-10; its mobile network is 4 @ 1056 with
    stem=imagenet, stem_filters=32, drop_path=0.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"cells": 1, "filters": 192, "stem_filters": 24},
        "full": {"cells": 6, "filters": 768, "stem_filters": 96, "drop_path": 0.4, "auxiliary": True},
    }

    unsaid: ClassVar[Mapping[str, Any]] = {"stem": AUTO}

    cells: int = Field(6, ge=1, le=100, description="N: normal cells per stage")
    filters: int = Field(768, ge=2 * PER_FILTER, le=24_000, multiple_of=PER_FILTER, description="F of N @ F")
    stem: Stem = Field("cifar", description="3x3, or for photographs 3x3 of stride 2 and two reduction cells")
    stem_filters: int = Field(96, ge=1, le=1024, description="channels of the stem's convolution")
    drop_path: float = Field(0.0, ge=0.0, lt=1.0, description="probability of dropping a path at the last step")
    auxiliary: bool = Field(False, description="a second classifier while training; no part of params")

    def fitted(self, task: Task) -> Size:
        return self.model_copy(update={"stem": stem_for(task)}) if self.stem == AUTO else self


@dataclass(frozen=True, slots=True)
class Block:
    """Two states, the operation on each, and how the results are combined."""

    inputs: tuple[int, int]
    operations: tuple[str, str]
    combination: str

    @property
    def paths(self) -> tuple[tuple[int, str], tuple[int, str]]:
        return (self.inputs[0], self.operations[0]), (self.inputs[1], self.operations[1])


Cell = tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A cell in its place of the network.

    `channels` are those of h_{i-1} and h_i, `shape` is the resolution of h_i; `halve` says that h_{i-1} has twice
    of it. `auxiliary` says that the auxiliary classifier reads the output.
    """

    cell: Cell
    stride: int
    width: int
    channels: tuple[int, int]
    shape: tuple[int, int]
    halve: bool
    auxiliary: bool

    @property
    def outputs(self) -> int:
        return self.width * len(unread(self.cell))

    @property
    def output_shape(self) -> tuple[int, int]:
        return halved(self.shape) if self.stride == 2 else self.shape

    def path_stride(self, state: int) -> int:
        """The stride of an operation on a state: only the inputs of a reduction cell are reduced."""
        return self.stride if state < 2 else 1


def unread(cell: Cell) -> tuple[int, ...]:
    """The states that no block reads; they make the output."""
    read = {state for block in cell for state in block.inputs}
    return tuple(state for state in range(2 + len(cell)) if state not in read)


def weighted(operation: str, stride: int) -> bool:
    """Whether an operation that keeps the width has weights; those that do rectify what they read."""
    return "conv" in operation or (operation == IDENTITY and stride == 2)


def kernel(operation: str) -> int:
    """The larger side of the kernel of a convolution or pooling."""
    return max(int(letter) for letter in operation if letter.isdigit())
