"""AZ-NAS: four views of an untrained network, to be ranked each and joined late (`predictors.ranking`).

Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024. With the
features of successive blocks and Kaiming-normal weights (fan in):

- expressivity: the sum over blocks of the entropy of the eigenvalues of the channels' covariance;
- progressivity: the smallest growth of that entropy from one block to the next;
- trainability: the mean over blocks of 2 - s - 1/s, with s the spectral norm of the map that takes gradients
  back through the block, estimated with random signs;
- complexity: multiply-accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import IMAGES, Unscorable
from predictors.zero_cost.transform import gaussian_like, kaiming, reinitialise
from training.cost import macs


class AZNAS:
    """Scores of Gaussian images in the shape of the batch. A block that passes its input on has trainability minus
    infinity, and so has the network.

    Blocks are the children of the network's body: of all `nn.Sequential` and `nn.ModuleList` that are inside no other,
    the one that holds the most modules. What the first child is given counts as the output of a block too, unless it
    is the image itself.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = IMAGES
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("expressivity", "progressivity", "trainability", "complexity")

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without two successive blocks, or with a block whose output is constant."""
        generator, model = forward.generator("az_nas"), forward.copy()
        reinitialise(model, generator, kaiming)
        image = gaussian_like(forward.batch.inputs[0], generator)
        taps = _taps(forward, model, image)
        if len(taps) < 2:
            raise Unscorable("the network has no body of at least two blocks with feature maps [n, channels, h, w]")
        entropies = [entropy(tap.detach()) for tap in taps]
        if any(math.isnan(value) for value in entropies):
            raise Unscorable("a block's output is constant")
        pairs = list(pairwise(taps))
        steps = [trainability(before, after, generator) for before, after in reversed(pairs)]
        return {
            "expressivity": sum(entropies),
            "progressivity": min(after - before for before, after in pairwise(entropies)),
            "trainability": sum(steps) / len(steps),
            "complexity": float(macs(model, (image[:1],))),
        }


def entropy(features: Tensor) -> float:
    """Entropy, in nats, of the eigenvalues of the covariance of the channels of `[n, c, h, w]`, scaled to sum 1.

    NaN where the covariance is zero.
    """
    positions = features.transpose(0, 1).flatten(1).double()
    positions = positions - positions.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(positions @ positions.T / positions.shape[1]).clamp(min=0)
    total = eigenvalues.sum()
    return float(torch.special.entr(eigenvalues / total).sum()) if total > 0 else math.nan


def trainability(before: Tensor, after: Tensor, generator: torch.Generator) -> float:
    """2 - s - 1/s of one block from its input and output, both in one autograd graph, whose part it frees.

    Minus infinity for the identity. Raises Unscorable for a block that enlarges its map.
    """
    signs = torch.randint(2, after.shape, generator=generator).to(after) * 2 - 1
    (back,) = torch.autograd.grad(after, before, signs, allow_unused=True, materialize_grads=True)
    if back.shape == signs.shape and torch.equal(back, signs):
        return -math.inf
    (height, width), (rows, columns) = before.shape[2:], after.shape[2:]
    if height < rows or width < columns:
        raise Unscorable("a block enlarges its map")
    stride = max(math.ceil(height / rows), math.ceil(width / columns))
    if stride > 1:  # all positions under one position of the output become channels
        padded = functional.pad(back, (0, columns * stride - width, 0, rows * stride - height))
        back = functional.pixel_unshuffle(padded, stride)
    sent, received = signs.transpose(0, 1).flatten(1), back.transpose(0, 1).flatten(1)
    largest = float(torch.linalg.matrix_norm(received @ sent.T / sent.shape[1], 2))
    return 2 - largest - 1 / (largest + 1e-6)


def body(model: nn.Module) -> Sequence[nn.Module]:
    """The blocks of a network (see `AZNAS`); none where it has no container."""
    outer: list[nn.Module] = []

    def descend(module: nn.Module) -> None:
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            outer.append(module)
        else:
            for child in module.children():
                descend(child)

    descend(model)
    largest = max(outer, key=lambda module: sum(1 for _ in module.modules()), default=None)
    return [] if largest is None else list(largest.children())


def _taps(forward: ForwardPass, model: nn.Module, image: Tensor) -> list[Tensor]:
    """The features between blocks, in the order in which they are computed, in one autograd graph."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            return None
        if not found:
            last = args[-1]  # of cells that are given the two before them the nearer one
            if isinstance(last, Tensor) and last.requires_grad and last.dim() == 4:
                found.append(last)
        if not output.requires_grad:  # no weight and no image reaches it
            output = output.clone().requires_grad_()
        found.append(output)
        return output.clone()  # what follows may overwrite its input

    for block in body(model):
        block.register_forward_hook(keep)
    with torch.enable_grad():
        forward.run(model, forward.with_inputs(image))
    return found
