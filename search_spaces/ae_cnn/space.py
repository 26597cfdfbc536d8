"""AE-CNN: lists of ResNet, DenseNet and pooling units, of variable length.

Sun, Xue, Zhang, Yen, "Completely Automated CNN Architecture Design Based on Blocks", IEEE TNNLS 31(4), 2020
(arXiv 1810.11875). An image goes through the units as they are listed, then through a linear classifier of the
flattened map. A unit's input width is its predecessor's output width, so no list is ill-formed inside; a network
has at most four pools, as in the paper's later generations, and does not begin with one.

Deviations: at most 16 units rather than 50; the first generation is drawn from the whole space (the paper's has 1 to
4 ResNet units, 1 to 4 DenseNet units and 4 pools); pooling rounds sizes up, so images of any size pass any number
of pools (a single pixel stays one); a mutation always changes something, and its bounds are inclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.ae_cnn.units import (
    BLOCKS,
    CHANNELS,
    DENSENET,
    GROWTHS,
    LAYERS,
    MODES,
    POOL,
    RESNET,
    TYPES,
    DenseNetUnit,
    PoolingUnit,
    ResNetUnit,
    Unit,
    altered,
    densenet,
    draw,
    random_unit,
    read,
)
from search_spaces.layers.stems import AUTO, CIFAR, Stem, stem_for

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import nn

MUTATIONS = {"add": 0.4, "remove": 0.3, "alter": 0.3}
LONGEST = 50
STEM = (32, 64)  # channels of the convolutions before the first unit, for photographs


class Size(SizeConfig):
    """How much wider and deeper the units are built than they say; counts are rounded and at least 1.

    The paper's networks have no stem. For photographs two 3x3 convolutions of stride 2 come first.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "search": {"width_scale": 0.25, "depth_scale": 0.3},
        "full": {"width_scale": 1.0, "depth_scale": 1.0},
    }

    unsaid: ClassVar[Mapping[str, Any]] = {"stem": AUTO}
    later: ClassVar[frozenset[str]] = frozenset({"stem"})

    width_scale: float = Field(1.0, gt=0, le=4, description="factor on channels, growth and widest dense input")
    depth_scale: float = Field(1.0, gt=0, le=4, description="factor on the blocks and layers of a unit")
    stem: Stem = Field("cifar", description="none, or for photographs two convolutions of stride 2")

    def fitted(self, task: Task) -> Size:
        return self.model_copy(update={"stem": stem_for(task)}) if self.stem == AUTO else self


def times(number: int, factor: float) -> int:
    return max(1, round(number * factor))


def stem_widths(size: Size) -> list[int]:
    """Channels after each convolution of the stem."""
    return [] if size.stem == CIFAR else [times(width, size.width_scale) for width in STEM]


def scaled(unit: Unit, size: Size) -> Unit:
    """The unit as it is built."""
    width, depth = size.width_scale, size.depth_scale
    if isinstance(unit, ResNetUnit):
        return ResNetUnit(times(unit.blocks, depth), times(unit.channels, width))
    if isinstance(unit, DenseNetUnit):
        return DenseNetUnit(times(unit.layers, depth), times(unit.growth, width), times(unit.max_input, width))
    return unit


class AeCnn(SearchSpace):
    """Lists of at most `units` units (1..50), of which `min_pools` to `pools` are pooling units.

    The text of an architecture names its units in order: `R3-64` three ResNet blocks of 64 channels, `D5-20` five
    DenseNet layers of growth 20, `Pmax` and `Pavg` the pools, as in `R3-64,Pmax,D5-20,Pavg`.
    Raises UsageError for arguments that are no such numbers.
    """

    name = "ae-cnn"
    version = 2
    earlier = (1,)
    tasks = frozenset({IMAGE_CLASSIFICATION})
    Size = Size
    why_not_relaxable = (
        "its networks are chains of variable length in which each unit sets the width of the units behind it"
    )

    def __init__(self, units: int = 16, pools: int = 4, min_pools: int = 0) -> None:
        self._most = _whole("units", units, 1, LONGEST)
        self._pools = _whole("pools", pools, 0, LONGEST)
        self._min_pools = _whole("min_pools", min_pools, 0, min(pools, units - 1))
        lengths = tuple(range(min_pools + 1, units + 1))
        choices = [Choice("length", lengths, "length", ordered=True)]
        for number in range(1, units + 1):
            unit = f"unit{number}"
            present = (When("length", tuple(range(number, units + 1))),) if number > lengths[0] else ()
            resnet, dense, pool = ((When(f"{unit}/type", (kind,)),) for kind in TYPES)
            choices += [
                Choice(f"{unit}/type", TYPES, "unit type", present),
                Choice(f"{unit}/blocks", BLOCKS, "resnet blocks", resnet, ordered=True),
                Choice(f"{unit}/channels", CHANNELS, "resnet channels", resnet, ordered=True),
                Choice(f"{unit}/growth", GROWTHS, "densenet growth", dense, ordered=True),
                Choice(f"{unit}/layers", BLOCKS, "densenet layers", dense, ordered=True),
                Choice(f"{unit}/pool", MODES, "pooling", pool),
            ]
        self.choices = tuple(choices)

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """No pool first, no more and no fewer than the limits; as many dense layers as their growth permits."""
        unit, _, part = choice.name.rpartition("/")
        if part == "type":
            number = int(unit.removeprefix("unit"))
            pools = sum(prefix[f"unit{earlier}/type"] == POOL for earlier in range(1, number))
            if self._min_pools - pools > int(prefix["length"]) - number:
                return (POOL,)
            return TYPES if number > 1 and pools < self._pools else (RESNET, DENSENET)
        if part == "layers":
            return LAYERS[int(prefix[f"{unit}/growth"])]
        return choice.options

    def units(self, arch: Architecture) -> tuple[Unit, ...]:
        """The units at width and depth scale 1. Raises UsageError for an illegal architecture."""
        check_legal(self, arch)
        return self._units(arch)

    def _architecture(self, units: Sequence[Unit]) -> Architecture:
        """The architecture with these units. Raises ValueError where length or pools are not those of the space."""
        if not 1 <= len(units) <= self._most:
            raise ValueError(f"the list has {len(units)} units; this space has 1 to {self._most} (units={self._most})")
        if isinstance(units[0], PoolingUnit):
            raise ValueError(f"the first unit is {units[0]}; a network does not begin with a pool")
        pools = _pools_before(units)[-1]
        if not self._min_pools <= pools <= self._pools:
            raise ValueError(f"the list has {pools} pools; this space has {self._min_pools} to {self._pools} in a list")
        values: dict[str, Value] = {"length": len(units)}
        for number, unit in enumerate(units, 1):
            name = f"unit{number}"
            if isinstance(unit, ResNetUnit):
                values |= {f"{name}/type": RESNET, f"{name}/blocks": unit.blocks, f"{name}/channels": unit.channels}
            elif isinstance(unit, DenseNetUnit):
                values |= {f"{name}/type": DENSENET, f"{name}/growth": unit.growth, f"{name}/layers": unit.layers}
            else:
                values |= {f"{name}/type": POOL, f"{name}/pool": unit.mode}
        return Architecture(self.name, values)

    def to_text(self, arch: Architecture) -> str:
        """The units, separated by commas."""
        return ",".join(map(str, self._units(arch)))

    def from_text(self, text: str) -> Architecture:
        """The architecture of such a list. Raises ValueError, naming what is wrong with the text."""
        return self._architecture([read(part.strip(), number) for number, part in enumerate(text.split(","), 1)])

    def identity(self, arch: Architecture) -> str:
        """The text, as in the paper (there hashed).

        Neighbours that could be one unit (`R3-64,R3-64` and `R6-64`) stay two: they differ at other depth scales.
        """
        return self.to_text(arch)

    def graph(self, arch: Architecture) -> ArchGraph:
        """A chain of units, labelled with their text."""
        labels = ("input", *map(str, self._units(arch)), "output")
        return ArchGraph(labels, tuple((node, node + 1) for node in range(len(labels) - 1)))

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The network, untrained: `[b, *task.input_shape]` to `[b, outputs]`, images of this size only, as every
        pixel of the last map has weights of its own (4 pools make it 2x2 for 32x32 and 28x28 images, 1x1 for 8x8).

        Raises UsageError for an illegal architecture, another kind of task, or a size of another space.
        """
        from search_spaces.ae_cnn.network import UnitNetwork, dense_unit, pooling_unit, resnet_unit
        from search_spaces.layers.blocks import ConvNormReLU

        modules: list[nn.Module] = []
        width, height, breadth = task.images()
        own = Size.own(size, self.name).fitted(task)
        for channels in stem_widths(own):
            modules.append(ConvNormReLU(width, channels, 3, 2))
            width, height, breadth = channels, _halved(height), _halved(breadth)
        for unit in self.units(arch):
            built = scaled(unit, own)
            match built:
                case ResNetUnit(blocks, channels):
                    modules.append(resnet_unit(width, blocks, channels))
                case DenseNetUnit(layers, growth, max_input):
                    modules.append(dense_unit(width, layers, growth, max_input))
                case PoolingUnit(mode):
                    modules.append(pooling_unit(mode))
                    height, breadth = _halved(height), _halved(breadth)
            width = built.outputs(width)
        return UnitNetwork(modules, width * height * breadth, task.outputs)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params`, and `macs`: multiply-adds of all convolutions and the classifier for one image; BN, ReLU,
        additions and pooling count nothing. Raises UsageError like `build`."""
        params = macs = 0
        width, height, breadth = task.images()
        own = Size.own(size, self.name).fitted(task)
        for channels in stem_widths(own):
            weights, width, height, breadth = 9 * width * channels, channels, _halved(height), _halved(breadth)
            params, macs = params + weights + 2 * channels, macs + weights * height * breadth
        for unit in self.units(arch):
            built = scaled(unit, own)
            for convolution in built.convolutions(width):
                params += convolution.weights + 2 * convolution.normed
                macs += convolution.weights * height * breadth
            if isinstance(built, PoolingUnit):
                height, breadth = _halved(height), _halved(breadth)
            width = built.outputs(width)
        features = width * height * breadth
        return {"params": params + (features + 1) * task.outputs, "macs": macs + features * task.outputs}

    def mutate(self, arch: Architecture, rng: Generator) -> Architecture:
        """A unit is added, removed or altered, with probabilities 0.4, 0.3 and 0.3 of those that are possible.

        Added is a unit of random type (a pool only below the limit) after a random one. Removed is any whose
        absence leaves a network. Altered is the number of blocks or the channels of a ResNet unit, the layers of
        a DenseNet unit, or the kind of pooling. The result differs from `arch`.
        """
        units = list(self._units(arch))
        pools = _pools_before(units)[-1]
        first = 1 if len(units) == 1 or isinstance(units[1], PoolingUnit) else 0
        removable = [
            place
            for place in range(first, len(units))
            if pools > self._min_pools or not isinstance(units[place], PoolingUnit)
        ]
        feasible = {"add": len(units) < self._most, "remove": bool(removable), "alter": True}
        possible = [name for name in MUTATIONS if feasible[name]]
        weights = [MUTATIONS[name] for name in possible]
        kind = possible[int(rng.choice(len(possible), p=[weight / sum(weights) for weight in weights]))]
        if kind == "add":
            place = 1 + int(rng.integers(len(units)))
            types = TYPES if pools < self._pools else (RESNET, DENSENET)
            units.insert(place, random_unit(draw(types, rng), rng))
        elif kind == "remove":
            del units[draw(removable, rng)]
        else:
            place = int(rng.integers(len(units)))
            units[place] = altered(units[place], rng)
        return self._architecture(units)

    def crossover(self, one: Architecture, other: Architecture, rng: Generator) -> tuple[Architecture, Architecture]:
        """One-point crossover with a cut of its own in each parent; the tails are swapped.

        The pair of cuts is uniform over those that give two legal children and are not both before the first or
        both behind the last unit, as redrawing would make it; without any such pair the children are the parents.
        """
        a, b = self._units(one), self._units(other)
        cuts = list(self._cuts(a, b))
        if not cuts:
            return one, other
        cut_a, cut_b = draw(cuts, rng)
        return self._architecture(a[:cut_a] + b[cut_b:]), self._architecture(b[:cut_b] + a[cut_a:])

    def _cuts(self, a: Sequence[Unit], b: Sequence[Unit]) -> Iterator[tuple[int, int]]:
        """The pairs of cuts that `crossover` draws from: how many units of each parent come before the cut."""
        before_a, before_b = _pools_before(a), _pools_before(b)
        both, pools, limits = len(a) + len(b), before_a[-1] + before_b[-1], (self._min_pools, self._pools)
        for cut_a, cut_b in product(range(len(a) + 1), range(len(b) + 1)):
            length = cut_a + len(b) - cut_b
            shared = before_a[cut_a] + before_b[-1] - before_b[cut_b]
            if not max(1, both - self._most) <= length <= min(self._most, both - 1):
                continue
            if not (limits[0] <= shared <= limits[1] and limits[0] <= pools - shared <= limits[1]):
                continue
            if (cut_a == 0 and isinstance(b[cut_b], PoolingUnit)) or (cut_b == 0 and isinstance(a[cut_a], PoolingUnit)):
                continue
            if 0 < cut_a + cut_b < both:
                yield cut_a, cut_b

    def _units(self, arch: Architecture) -> tuple[Unit, ...]:
        values = arch.values
        units: list[Unit] = []
        for number in range(1, int(values["length"]) + 1):
            name = f"unit{number}"
            kind = values[f"{name}/type"]
            if kind == RESNET:
                units.append(ResNetUnit(int(values[f"{name}/blocks"]), int(values[f"{name}/channels"])))
            elif kind == DENSENET:
                units.append(densenet(int(values[f"{name}/layers"]), int(values[f"{name}/growth"])))
            else:
                units.append(PoolingUnit(str(values[f"{name}/pool"])))
        return tuple(units)


def _pools_before(units: Sequence[Unit]) -> list[int]:
    """The number of pools before each cut, from none to all units."""
    return list(accumulate((isinstance(unit, PoolingUnit) for unit in units), initial=0))


def _whole(name: str, number: int, low: int, high: int) -> int:
    if type(number) is not int or not low <= number <= high:
        raise UsageError(f"ae-cnn: {name} is {number!r}; use a whole number from {low} to {high}")
    return number


def _halved(side: int) -> int:
    return -(-side // 2)
