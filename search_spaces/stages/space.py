"""Stages: networks whose stages each repeat a block of a catalogue: bottleneck, ResNeXt, selective kernel.

A network is a stem, stages, the mean over the image and a linear classifier, as ResNet (He et al., CVPR 2016), ResNeXt
(Xie et al., CVPR 2017), SKNet (Li et al., CVPR 2019) and AnyNet (Radosavovic et al., CVPR 2020) are. Of every stage is
chosen: the block, how often it stands there, its output width, and the block's own options. The first block of every
stage but the first one halves the resolution. Named are ResNeXt-50 (32x4d) and SKNet-50, for images of 224x224 at size
`full` with the stem "imagenet".

Widths never fall from stage to stage (AnyNetXD). The catalogue is `search_spaces.operators.blocks`; costs are counted
on the built network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.layers.stems import AUTO, IMAGENET, Stem, stem_for
from search_spaces.operators.blocks import BLOCK, choices_of

if TYPE_CHECKING:
    from torch import nn

BLOCKS = tuple(BLOCK.table)
DEPTHS = (1, 2, 3, 4, 5, 6)
WIDTHS = (64, 128, 256, 512, 1024, 2048)
STEM = 64  # channels at width scale 1
MULTIPLE = 8  # of which all built widths are multiples
MOST = 8  # stages

_RESNET_50 = tuple(zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True))
_NAMED: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "ResNeXt-50": ("resnext", {"cardinality": 32, "base_width": 4}),
    "SKNet-50": ("selective-kernel", {"cardinality": 32, "base_width": 4, "branches": 2, "reduction": 16}),
}


class Size(SizeConfig):
    """The stem, and how much wider the stages are built than their choices say."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"width_scale": 0.0625}, "full": {}}
    unsaid: ClassVar[Mapping[str, Any]] = {"stem": AUTO}

    width_scale: float = Field(1.0, gt=0, le=4, description="factor on the widths of stem and stages")
    stem: Stem = Field("cifar", description="3x3, or for photographs 7x7 of stride 2 and pooling of stride 2")

    def fitted(self, task: Task) -> Size:
        return self.model_copy(update={"stem": stem_for(task)}) if self.stem == AUTO else self

    def width(self, chosen: int) -> int:
        """A chosen width at this scale: the nearest multiple of 8, at least 8."""
        return max(1, round(chosen * self.width_scale / MULTIPLE)) * MULTIPLE


class Stages(SearchSpace):
    """`stages` stages (1 to 8) of the blocks `blocks`: names of the catalogue, or your own, `my_blocks.py:Mine`.

    Raises UsageError for another number of stages, and for blocks that are none.
    """

    name = "stages"
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size
    why_not_relaxable = (
        "its choices set depths and widths of whole stages, so the candidates of one have no common shape"
    )

    def __init__(self, stages: int = 4, blocks: Sequence[str] = BLOCKS) -> None:
        if type(stages) is not int or not 1 <= stages <= MOST:
            raise UsageError(f"stages: there are {stages!r} stages; use 1 to {MOST}")
        self.blocks = {block.label: block for block in BLOCK.operators(blocks)}
        self._options = {label: choices_of(block) for label, block in self.blocks.items()}
        self._stages = tuple(f"stage{number}" for number in range(1, stages + 1))
        self.choices = tuple(choice for stage in self._stages for choice in self._choices(stage))
        named = {name: self._architecture(*block) for name, block in _NAMED.items() if stages == len(_RESNET_50)}
        self.named: Mapping[str, Architecture] = {name: arch for name, arch in named.items() if not self.illegal(arch)}

    def _choices(self, stage: str) -> Iterator[Choice]:
        yield Choice(f"{stage}/block", tuple(self.blocks), "block")
        yield Choice(f"{stage}/depth", DEPTHS, "depth", ordered=True)
        yield Choice(f"{stage}/width", WIDTHS, "width", ordered=True)
        for label, options in self._options.items():
            present = (When(f"{stage}/block", (label,)),)
            for option, values in options.items():
                ordered = not isinstance(values[0], str | bool)
                yield Choice(f"{stage}/{label}/{option}", values, option.replace("_", " "), present, ordered=ordered)

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """A stage is at least as wide as the one before it."""
        before = [value for name, value in prefix.items() if name.endswith("/width")]
        if not choice.name.endswith("/width") or choice.kind != "width" or not before:
            return choice.options
        return tuple(option for option in choice.options if option >= before[-1])  # type: ignore[operator]

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The network, untrained, for images of any shape: `(n, *task.input_shape)` to `(n, task.outputs)`.

        Raises UsageError for an illegal architecture, another kind of task, or another space's size.
        """
        from torch import nn

        from search_spaces.layers.blocks import BlockNetwork, ConvNormReLU

        check_legal(self, arch)
        channels, *_ = task.images()
        own = Size.own(size, self.name).fitted(task)
        width = own.width(STEM)
        stem: nn.Module = ConvNormReLU(channels, width, 3)
        if own.stem == IMAGENET:
            stem = nn.Sequential(ConvNormReLU(channels, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        body = []
        for number, (label, depth, chosen, options) in enumerate(self._built(arch)):
            for position in range(depth):
                stride = 2 if number and not position else 1
                body.append(self.blocks[label].make(width, own.width(chosen), stride, **options))
                width = own.width(chosen)
        return BlockNetwork(stem, body, width, task.outputs)

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain of blocks, each labelled with its width and options."""
        labels = ["input"]
        for label, depth, width, options in self._built(arch):
            labels += [" ".join([label, f"{width} channels", *(f"{k}={v}" for k, v in options.items())])] * depth
        labels.append("output")
        return ArchGraph(tuple(labels), tuple((node, node + 1) for node in range(len(labels) - 1)))

    def findings(self) -> Iterator[str]:
        """What is wrong with blocks of a user's."""
        from search_spaces.operators.blocks.suite import check

        for block in self.blocks.values():
            if block.own:
                yield from check(block)

    def _built(self, arch: Architecture) -> Iterator[tuple[str, int, int, dict[str, Value]]]:
        """Of every stage the block, its depth, its width and its options."""
        values = arch.values
        for stage in self._stages:
            label = str(values[f"{stage}/block"])
            options = {option: values[f"{stage}/{label}/{option}"] for option in self._options[label]}
            yield label, int(values[f"{stage}/depth"]), int(values[f"{stage}/width"]), options

    def _architecture(self, block: str, options: Mapping[str, Value]) -> Architecture:
        """A network with the depths and widths of ResNet-50 and one block."""
        values: dict[str, Value] = {}
        for stage, (depth, width) in zip(self._stages, _RESNET_50, strict=True):
            values |= {f"{stage}/block": block, f"{stage}/depth": depth, f"{stage}/width": width}
            values |= {f"{stage}/{block}/{option}": value for option, value in options.items()}
        return Architecture(self.name, values)
