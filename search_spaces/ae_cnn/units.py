"""Units of AE-CNN (Sun et al., arXiv 1810.11875): what they are, their text, random ones and their mutations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from numpy.random import Generator

RESNET, DENSENET, POOL = TYPES = ("resnet", "densenet", "pool")
BLOCKS = tuple(range(3, 11))  # of a ResNet unit
CHANNELS = (64, 128, 256)
GROWTHS = (12, 20, 40)
LAYERS = {12: tuple(range(3, 11)), 20: tuple(range(3, 11)), 40: tuple(range(3, 6))}  # of a DenseNet unit, by growth
MAX_INPUTS = {12: 128, 20: 64, 40: 32}  # the width that a DenseNet unit reduces wider inputs to, by growth
MODES = ("max", "avg")

_UNIT = re.compile(r"(?P<letter>[RD])(?P<count>[0-9]{1,4})-(?P<width>[0-9]{1,4})|P(?P<mode>max|avg)")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Convolution:
    """A square convolution without bias; `normed` is the width of the BN before or after it."""

    inputs: int
    outputs: int
    kernel: int
    normed: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.kernel**2


@dataclass(frozen=True, slots=True)
class ResNetUnit:
    """Residual bottleneck blocks of one width and stride 1."""

    blocks: int
    channels: int

    def __str__(self) -> str:
        return f"R{self.blocks}-{self.channels}"

    def outputs(self, inputs: int) -> int:
        """The output width, given the input width."""
        return self.channels

    def convolutions(self, inputs: int) -> Iterator[Convolution]:
        width = self.channels
        for block in range(self.blocks):
            entering = width if block else inputs
            if entering != width:
                yield Convolution(entering, width, 1, width)  # the shortcut
            yield Convolution(entering, width, 1, width)
            yield Convolution(width, width, 3, width)
            yield Convolution(width, width, 1, width)


@dataclass(frozen=True, slots=True)
class DenseNetUnit:
    """Dense layers that append `growth` channels each; inputs of more than `max_input` channels are reduced first."""

    layers: int
    growth: int
    max_input: int

    def __str__(self) -> str:
        return f"D{self.layers}-{self.growth}"

    def outputs(self, inputs: int) -> int:
        """The output width, given the input width."""
        return min(inputs, self.max_input) + self.growth * self.layers

    def convolutions(self, inputs: int) -> Iterator[Convolution]:
        width = min(inputs, self.max_input)
        if inputs > width:
            yield Convolution(inputs, width, 1, inputs)
        for _ in range(self.layers):
            yield Convolution(width, 4 * self.growth, 1, width)
            yield Convolution(4 * self.growth, self.growth, 3, 4 * self.growth)
            width += self.growth


@dataclass(frozen=True, slots=True)
class PoolingUnit:
    """2x2 pooling of stride 2."""

    mode: str

    def __str__(self) -> str:
        return f"P{self.mode}"

    def outputs(self, inputs: int) -> int:
        """The output width, given the input width."""
        return inputs

    def convolutions(self, inputs: int) -> Iterator[Convolution]:
        return iter(())


Unit = ResNetUnit | DenseNetUnit | PoolingUnit


def densenet(layers: int, growth: int) -> DenseNetUnit:
    return DenseNetUnit(layers, growth, MAX_INPUTS[growth])


def read(text: str, number: int) -> Unit:
    """The unit of a text. Raises ValueError, naming what is wrong with it."""
    where = f"unit {number} '{text}'"
    found = _UNIT.fullmatch(text)
    if not found:
        raise ValueError(f"{where} is none of R<blocks>-<channels>, D<layers>-<growth>, Pmax, Pavg")
    if found["mode"]:
        return PoolingUnit(found["mode"])
    count, width = int(found["count"]), int(found["width"])
    widths, what = (CHANNELS, "channels") if found["letter"] == "R" else (GROWTHS, "growth")
    if width not in widths:
        raise ValueError(f"{where}: {what} {width} is none of {widths}")
    counts, what = (BLOCKS, "blocks") if found["letter"] == "R" else (LAYERS[width], f"layers of growth {width}")
    if count not in counts:
        raise ValueError(f"{where}: {count} {what}; there are {counts[0]} to {counts[-1]}")
    return ResNetUnit(count, width) if found["letter"] == "R" else densenet(count, width)


def random_unit(kind: str, rng: Generator) -> Unit:
    if kind == RESNET:
        return ResNetUnit(draw(BLOCKS, rng), draw(CHANNELS, rng))
    if kind == DENSENET:
        growth = draw(GROWTHS, rng)
        return densenet(draw(LAYERS[growth], rng), growth)
    return PoolingUnit(draw(MODES, rng))


def altered(unit: Unit, rng: Generator) -> Unit:
    """The unit with another value of what the paper alters; a ResNet unit's channels or blocks with even odds."""
    match unit:
        case ResNetUnit(blocks, channels) if rng.integers(2):
            return ResNetUnit(blocks, draw(others(CHANNELS, channels), rng))
        case ResNetUnit(blocks, channels):
            return ResNetUnit(draw(others(BLOCKS, blocks), rng), channels)
        case DenseNetUnit(layers, growth, _):
            return densenet(draw(others(LAYERS[growth], layers), rng), growth)
        case PoolingUnit(mode):
            return PoolingUnit(draw(others(MODES, mode), rng))


def draw(options: Sequence[T], rng: Generator) -> T:
    return options[int(rng.integers(len(options)))]


def others(options: Sequence[T], value: T) -> list[T]:
    return [option for option in options if option != value]
