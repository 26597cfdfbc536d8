"""Linear regions: into how many pieces a thin slice of the network cuts the space of small images.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours" (TE-NAS), ICLR 2021: the
number of different activation patterns among many samples. Patterns must be able to collide, or every sample is a
region of its own and all networks score the same; so they are few units of tiny images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy
import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.config import Config as BaseConfig
from predictors.experts import WHY_NOT, sorted_rows
from predictors.forward_pass import ForwardPass
from predictors.function_hooks import ACTIVATIONS
from predictors.need import Need
from predictors.proxy import IMAGES, Unscorable
from predictors.zero_cost.transform import kaiming, reinitialise
from training.rewrite import Rewrite, argument


class LinearRegions:
    """The mean number of regions over `repeats` networks with Kaiming-normal weights (fan in), in training mode.

    Deviations: TE-NAS builds networks of one channel; here the first `channels` channels of every activation count,
    of the network as it is, and all elementwise activations, by the sign of their input. Samples are not single crops
    but `points` at random on each of `lines` between two of them: on a line neighbours share patterns, so that deep
    networks, whose regions are small, do not all reach the number of samples, and constant crops, of which images of
    few pixels have many, count little. A crop is of one random channel of an image, given to all input channels.
    """

    class Config(BaseConfig):
        """Where the samples lie, the channels of each activation that count, and the networks that are averaged."""

        lines: int = Field(default=20, ge=2, le=100_000, description="each between two crops")
        points: int = Field(default=50, ge=1, le=100_000, description="samples on each line")
        crop: int = Field(default=3, ge=1, description="height and width of the crops")
        channels: int = Field(default=1, ge=1, description="of each activation that count")
        repeats: int = Field(default=3, ge=1, le=100, description="of weights and samples, averaged")

    tasks: ClassVar[frozenset[str]] = IMAGES
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("linear_regions",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without activations, and for layers of experts that are not merged; 1, the
        worst, where nothing depends on the image."""
        generator, model = forward.generator("linear_regions"), forward.copy()
        found = []
        for _ in range(self._config.repeats):
            reinitialise(model, generator, kaiming)
            found.append(regions(self._patterns(forward, model, self._crops(forward, generator))))
        return {"linear_regions": sum(found) / len(found)}

    def _crops(self, forward: ForwardPass, generator: torch.Generator) -> Tensor:
        """`[samples, channels, crop, crop]`, all channels equal."""
        images = forward.batch.inputs[0]
        for axis in (2, 3):
            images = images.unfold(axis, min(self._config.crop, images.shape[axis]), 1)
        lines, points = self._config.lines, self._config.points
        picked = (torch.randint(length, (2 * lines,), generator=generator) for length in images.shape[:4])
        image, channel, row, column = (index.to(images.device) for index in picked)
        first, second = images[image, channel, row, column].repeat_interleave(points, 0).chunk(2)
        along = torch.rand(lines * points, 1, 1, generator=generator).to(images)
        crops = torch.lerp(first, second, along)
        return crops[:, None].expand(-1, images.shape[1], -1, -1).contiguous()

    def _patterns(self, forward: ForwardPass, model: nn.Module, crops: Tensor) -> Tensor:
        """`[samples, units]`: which units are on."""
        found: list[Tensor] = []

        def tap(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            x = argument(args, kwargs, 0, "input")
            if x.dim() > 1 and len(x) == len(crops):
                found.append((x[:, : self._config.channels] > 0).flatten(1))
            return function(*args, **kwargs)

        def head(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            if args[0].shape[-1] != argument(args, kwargs, 1, "weight").shape[-1]:
                raise _HeadError  # a classifier of flattened maps fits images of one size only
            return function(*args, **kwargs)

        rules = {name + mark: tap for name in ACTIVATIONS for mark in ("", "_")} | {"linear": head}
        try:
            with torch.no_grad(), Rewrite(rules), sorted_rows(model) as layers_of_experts:
                forward.run(model, forward.with_inputs(crops))
        except _HeadError:
            pass  # nothing that comes after a linear layer of all positions is counted
        if layers_of_experts:
            raise Unscorable(WHY_NOT)
        if not found:
            raise Unscorable("the network has no elementwise activation")
        return torch.cat(found, 1)


def regions(patterns: Tensor) -> int:
    """The number of different rows of `[samples, units]` bool."""
    return len({row.tobytes() for row in numpy.packbits(patterns.cpu().numpy(), axis=1)})


class _HeadError(Exception):
    """The network reached a linear layer that does not fit the size of the crops."""
