"""RegNet: networks of residual bottleneck stages whose widths follow a quantised line.

Radosavovic, Kosaraju, Girshick, He and Dollar, "Designing Network Design Spaces", CVPR 2020. A network is a
stem, stages of X (or, with squeeze-and-excitation, Y) blocks that halve the resolution, and a linear head.
An AnyNet is any sequence of `Stage`; a RegNet's stages follow from five numbers (equations 2-4).

Deviations: parameters are on grids; stem and number of stages suit small images, as in the authors'
CIFAR sweep (depth 6-16, group width 1-32, two stages, stem of 16 channels and stride 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy
from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.layers.stems import AUTO, IMAGENET, stem_for

if TYPE_CHECKING:
    from torch import nn

QUANTUM = 8  # raw widths are multiples of it
SQUEEZE = 0.25  # hidden width of a gate, relative to the width of the block's input
BOTTLENECKS = (1, 2, 4)

W_0 = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128)
W_A = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
W_M = (2.0, 2.25, 2.5, 2.75, 3.0)
GROUP_WIDTHS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Stage:
    """`depth` blocks of `width` channels, whose 3x3 works on `inner` channels in `groups` groups."""

    depth: int
    width: int
    inner: int
    groups: int


@dataclass(frozen=True, slots=True)
class Block:
    """One bottleneck block; `squeezed` is the hidden width of its gate, 0 without one."""

    inputs: int
    outputs: int
    stride: int
    inner: int
    groups: int
    squeezed: int


def block_widths(w_a: float, w_0: int, w_m: float, depth: int) -> list[int]:
    """The raw width of every block: the line u_j = w_0 + w_a j, moved to the nearest w_0 w_m^k (in the
    exponent), then to the nearest multiple of 8 (equations 2-4; numpy rounds half to even)."""
    line = w_0 + w_a * numpy.arange(depth)
    exponents = numpy.round(numpy.log(line / w_0) / numpy.log(w_m))
    widths = numpy.round(w_0 * numpy.power(w_m, exponents) / QUANTUM) * QUANTUM
    return [int(width) for width in widths]


def raw_stages(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Blocks of one width form a stage: (width, depth) of each."""
    return [(width, widths.count(width)) for width in sorted(set(widths))]


def compatible(width: int, group_width: int, bottleneck: int = 1) -> tuple[int, int, int]:
    """Width, inner width and groups of a stage such that whole groups fill the inner width.

    The inner width `width / bottleneck` is moved to the nearest multiple of the group width, which is
    lowered to the inner width where it is larger.
    """
    inner = int(max(1, width / bottleneck))
    group_width = min(group_width, inner)
    inner = max(group_width, round(inner / group_width) * group_width)
    return inner * bottleneck, inner, inner // group_width


def regnet_stages(
    w_a: float, w_0: int, w_m: float, depth: int, group_width: int, bottleneck: int = 1
) -> tuple[Stage, ...]:
    """The stages of a RegNet, as they are built."""
    raw = raw_stages(block_widths(w_a, w_0, w_m, depth))
    return tuple(Stage(count, *compatible(width, group_width, bottleneck)) for width, count in raw)


class Size(SizeConfig):
    """The stem, and how much wider the stages are built than their parameters say."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"stem_width": 16, "width_scale": 0.5},
        "full": {"stem_width": 16, "width_scale": 1.0},
        "imagenet": {"stem_width": 32, "stem_stride": 2, "width_scale": 1.0},
    }

    unsaid: ClassVar[Mapping[str, Any]] = {"stem_stride": AUTO}

    stem_width: int = Field(16, ge=1, le=1024, description="channels of the stem")
    stem_stride: Annotated[int, Field(ge=1, le=4)] | Literal["auto"] = Field(
        1, description="stride of the stem's 3x3 convolution [auto: 1, for photographs 2]"
    )
    width_scale: float = Field(1.0, gt=0, le=16, description="factor on the widths of all stages")

    def fitted(self, task: Task) -> Size:
        stride = 2 if stem_for(task) == IMAGENET else 1
        return self.model_copy(update={"stem_stride": stride}) if self.stem_stride == AUTO else self


def scaled(stages: Sequence[Stage], factor: float) -> tuple[Stage, ...]:
    """Stages `factor` times as wide, in multiples of 8 and with the same group widths where they fit."""
    if factor == 1:
        return tuple(stages)
    result = []
    for stage in stages:
        width = max(1, round(stage.width * factor / QUANTUM)) * QUANTUM
        fitted = compatible(width, stage.inner // stage.groups, stage.width // stage.inner)
        result.append(Stage(stage.depth, *fitted))
    return tuple(result)


def blocks(stages: Sequence[Stage], stem_width: int, se: bool) -> Iterator[Block]:
    """All blocks in order; the first of each stage has stride 2."""
    inputs = stem_width
    for stage in stages:
        for position in range(stage.depth):
            squeezed = max(1, round(SQUEEZE * inputs)) if se else 0
            yield Block(inputs, stage.width, 1 if position else 2, stage.inner, stage.groups, squeezed)
            inputs = stage.width


def build_network(stages: Sequence[Stage], task: Task, size: Size, se: bool) -> nn.Module:
    """The AnyNet with these stages, for images of any shape: `(n, *task.input_shape)` to `(n, outputs)`."""
    from search_spaces.layers.blocks import BlockNetwork, ConvNormReLU
    from search_spaces.operators.blocks.bottleneck import Bottleneck

    channels, _, _ = task.images()
    size = size.fitted(task)
    stages = scaled(stages, size.width_scale)
    body = [
        Bottleneck(block.inputs, block.outputs, block.stride, block.inner, block.groups, block.squeezed)
        for block in blocks(stages, size.stem_width, se)
    ]
    stem = ConvNormReLU(channels, size.stem_width, 3, int(size.stem_stride))
    return BlockNetwork(stem, body, stages[-1].width, task.outputs)


def network_costs(stages: Sequence[Stage], task: Task, size: Size, se: bool) -> dict[str, float]:
    """`params`, and `macs`: multiply-adds of all convolutions and the classifier for one image; biases,
    batch normalisation, activations, gates' products and means count nothing."""
    channels, *shape = task.images()
    size = size.fitted(task)
    stages = scaled(stages, size.width_scale)
    params = macs = 0

    def convolution(inputs: int, outputs: int, kernel: int, area: int, groups: int = 1) -> None:
        nonlocal params, macs
        weights = kernel**2 * inputs * outputs // groups
        params += weights + 2 * outputs  # scale and shift of its batch normalisation
        macs += weights * area

    height, width = (-(-side // int(size.stem_stride)) for side in shape)
    convolution(channels, size.stem_width, 3, height * width)
    for block in blocks(stages, size.stem_width, se):
        before = height * width
        height, width = -(-height // block.stride), -(-width // block.stride)
        if block.stride != 1 or block.inputs != block.outputs:
            convolution(block.inputs, block.outputs, 1, height * width)
        convolution(block.inputs, block.inner, 1, before)
        convolution(block.inner, block.inner, 3, height * width, block.groups)
        convolution(block.inner, block.outputs, 1, height * width)
        params += 2 * block.inner * block.squeezed + bool(block.squeezed) * (block.inner + block.squeezed)
        macs += 2 * block.inner * block.squeezed
    last = stages[-1].width
    return {"params": params + (last + 1) * task.outputs, "macs": macs + last * task.outputs}


class RegNet(SearchSpace):
    """RegNets with a given number of stages; depth, widths and group width are chosen.

    `bottleneck` is the paper's b (1, 2 or 4), `se` makes Y blocks. Only parameters that give exactly
    `stages` stages are legal; other draws are neither repaired nor cut.
    Raises UsageError where the arguments leave no network.
    """

    name = "regnet"
    version = 2
    earlier = (1,)
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size
    why_not_relaxable = (
        "its choices set the depth and the widths of all stages together, so the candidates of one have no common shape"
    )

    def __init__(
        self, stages: int = 2, min_depth: int = 6, max_depth: int = 16, bottleneck: int = 1, se: bool = True
    ) -> None:
        if bottleneck not in BOTTLENECKS:
            raise UsageError(f"regnet: bottleneck is {bottleneck!r}; use one of {BOTTLENECKS}")
        if not 1 <= min_depth <= max_depth <= 64:
            raise UsageError(f"regnet: depths from {min_depth} to {max_depth}; use 1 <= min_depth <= max_depth <= 64")
        self._bottleneck, self._se = bottleneck, se
        self.choices = (
            Choice("depth", tuple(range(min_depth, max_depth + 1)), "depth", ordered=True),
            Choice("w_0", W_0, "initial width", ordered=True),
            Choice("w_a", W_A, "width slope", ordered=True),
            Choice("w_m", W_M, "width multiplier", ordered=True),
            Choice("group_width", GROUP_WIDTHS, "group width", ordered=True),
        )
        self._completions = _completions(self.choices[:4], stages)
        if not self._completions[()]:
            raise UsageError(
                f"regnet: no network of {min_depth} to {max_depth} blocks has {stages} stages; "
                "lower stages or raise max_depth"
            )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """The options that some network with the wished number of stages has after these parameters."""
        if choice.name == "group_width":
            return choice.options
        position = [each.name for each in self.choices].index(choice.name)
        return self._completions.get(tuple(prefix[each.name] for each in self.choices[:position]), ())

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The network, untrained. Raises UsageError for an illegal architecture, task, or another space's size."""
        return build_network(self.stages(arch), task, Size.own(size, self.name), self._se)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """See `network_costs`."""
        return network_costs(self.stages(arch), task, Size.own(size, self.name), self._se)

    def stages(self, arch: Architecture) -> tuple[Stage, ...]:
        """The stages as they are built at width scale 1. Raises UsageError for an illegal architecture."""
        check_legal(self, arch)
        depth, w_0, w_a, w_m, group_width = (float(value) for value in arch.values.values())
        return regnet_stages(w_a, int(w_0), w_m, int(depth), int(group_width), self._bottleneck)

    def identity(self, arch: Architecture) -> str:
        """The stages as they are built: many parameters give the same network."""
        return " ".join(f"{s.depth}x{s.width}/{s.inner}g{s.groups}" for s in self.stages(arch))

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain of blocks, each labelled with its width, groups and stride."""
        body = [f"{b.outputs} channels, {b.groups} groups, /{b.stride}" for b in blocks(self.stages(arch), 0, False)]
        labels = ("input", *body, "output")
        return ArchGraph(labels, tuple((node, node + 1) for node in range(len(labels) - 1)))


def _completions(choices: Sequence[Choice], stages: int) -> dict[tuple[Value, ...], tuple[Value, ...]]:
    """For every prefix of (depth, w_0, w_a, w_m) that can be completed, the options that keep it so."""
    depths = choices[0].options
    allowed: dict[tuple[Value, ...], dict[Value, None]] = {(): {}}
    for w_0, w_a, w_m in product(W_0, W_A, W_M):
        widths = block_widths(w_a, w_0, w_m, int(depths[-1]))
        for depth in depths:
            if len(set(widths[: int(depth)])) == stages:
                values = (depth, w_0, w_a, w_m)
                for position, value in enumerate(values):
                    allowed.setdefault(values[:position], {})[value] = None
    return {
        prefix: tuple(option for option in choices[len(prefix)].options if option in found)
        for prefix, found in allowed.items()
    }
