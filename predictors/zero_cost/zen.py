"""Zen: how strongly the features of a network with Gaussian weights react to a small change of a Gaussian image.

Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition", ICCV 2021, algorithm 1: log of the
mean over images of |f(x) - f(x + gamma e)| summed over the features before global pooling, plus for every batch
normalisation the logarithm of sqrt(mean running variance), which gives back the scale that it takes away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import IMAGES, Unscorable
from predictors.zero_cost.transform import gaussian_like, reinitialise

_GLOBAL = frozenset({"adaptive_avg_pool2d", "adaptive_max_pool2d", "amax", "mean", "sum"})


class Zen:
    """Minus infinity, the worst, where the features do not depend on the image. Higher is better.

    f is the last tensor `[n, channels, h, w]` that is computed before the mean, sum, maximum or adaptive pooling that
    reduces it to one position; where there is none, before the image is flattened. A layer that divides by a moment of
    the batch in a formula of its own (`search_spaces.layers.batch_moment`) takes away a scale that is another one at
    every position: nothing is given back for it.
    """

    class Config(BaseConfig):
        """`repeats` of weights and images, averaged; `mixup` is the size gamma of the change."""

        repeats: int = Field(default=1, ge=1, le=1000, description="of weights and images, averaged")
        mixup: float = Field(default=1e-2, gt=0, le=1, description="the size gamma of the change")

    tasks: ClassVar[frozenset[str]] = IMAGES
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("zen",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network that computes no feature maps."""
        generator, model = forward.generator("zen"), forward.copy()
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        image = forward.batch.inputs[0]
        if not norms:  # nothing holds the values down: float32 overflows at some 30 layers
            model, image = model.double(), image.double()
        found = []
        for _ in range(self._config.repeats):
            reinitialise(model, generator, lambda fan_in: 1.0)
            image = gaussian_like(image, generator)
            changed = image + self._config.mixup * gaussian_like(image, generator)
            difference = features(forward, model, image) - features(forward, model, changed)
            reaction = float(difference.abs().flatten(1).sum(1).mean())
            found.append(math.log(reaction) + _scale(norms) if reaction > 0 else -math.inf)
        return {"zen": sum(found) / len(found)}


def features(forward: ForwardPass, model: nn.Module, image: Tensor) -> Tensor:
    """The feature maps of a network in training mode. Raises Unscorable where there are none."""
    with torch.no_grad(), _Features(len(image)) as tap:
        forward.run(model, forward.with_inputs(image))
    if tap.found is None:
        raise Unscorable("the network computes no feature maps [n, channels, h, w]")
    return tap.found


def _scale(norms: Sequence[_BatchNorm]) -> float:
    """Sum of the logarithms of the scales that normalisation took away."""
    variances = [norm.running_var.mean() for norm in norms if norm.running_var is not None]
    return sum(0.5 * math.log(float(variance)) for variance in variances)


class _Features(TorchFunctionMode):
    """Keeps the last feature maps before global pooling."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._samples = samples
        self._pooled = False  # what has one position is pooled until larger maps are seen again
        self.found: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() == 4 and len(result) == self._samples:
            if result.shape[2:].numel() > 1:
                self._pooled = False
            elif getattr(func, "__name__", "") in _GLOBAL and not _one_position(args):
                self._pooled = True
            if not self._pooled and result.is_floating_point():
                self.found = result
        return result


def _one_position(args: Sequence[Any]) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].dim() == 4 and args[0].shape[2:].numel() == 1
